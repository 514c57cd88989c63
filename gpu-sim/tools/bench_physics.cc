// Steps per second of the core against MuJoCo C on the same model, in the same minutes.
//
//   bench_physics --model hopper.binpb --mjcf tasks/hopper/model.xml
//       [--environments 512] [--threads 1,2] [--repeats 9] [--seconds 0.2] [--isa avx2]
//       [--regime rl,settled] [--seed 1]
//
// Two regimes, both with controls drawn uniformly every 2 steps:
//   rl       full range, an environment restarts when its height ends an episode or after 1000
//            control steps (2 steps each): mostly falling and hopping, few contacts;
//   settled  a tenth of the range, no restarts: lying on the ground, many contacts.
// Every repeat runs MuJoCo and the core with each number of threads in turn; ratios are taken
// within a repeat, because other users of the machine move both. One JSON line per regime and
// number of threads; `ratio` is per second of processor time, `scaling` the core's steps per second
// of wall time on all threads against the mean of its threads' environments stepped alone. Drawing
// the controls and checking for restarts is inside the timed loop of both, and both restart by
// writing positions, velocities and the warm start (mj_resetData of MuJoCo 2.2.2 clears 3 MB, which
// would flatter us).
#include <mujoco/mujoco.h>
#include <time.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <functional>
#include <memory>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "core/kernels.h"
#include "sdpg/model/v1/model.pb.h"

namespace {

using sdpg::core::BlockView;
using sdpg::core::Kernels;
using sdpg::core::Model;

[[noreturn]] void die(const std::string& line) {
  std::fprintf(stderr, "bench_physics: %s\n", line.c_str());
  std::exit(2);
}

// What a regime needs to know of a task: the height coordinate and where an episode ends.
struct Task {
  const char* name;
  int height;              // index into qpos
  double lowest, highest;  // an episode ends outside
  bool ends(double z) const { return !(z >= lowest && z <= highest); }
};
constexpr Task kTasks[] = {{"hopper", 1, -0.45, 15},
                           {"walker", 1, -0.5, 15},
                           {"ant", 2, 0.27, 1.3},
                           {"humanoid", 2, 0.74, 2.0}};
constexpr int kControlSteps = 2;
constexpr int kEpisode = 1000;
constexpr double kStartNoise = 0.05;

struct Options {
  std::string model, mjcf, isa;
  int environments = 512, repeats = 9;
  double seconds = 0.2;
  std::vector<int> threads = {1, 2};
  std::vector<std::string> regimes = {"rl", "settled"};
  std::uint64_t seed = 1;
};

std::vector<std::string> split(const std::string& text) {
  std::vector<std::string> parts;
  std::stringstream stream(text);
  for (std::string part; std::getline(stream, part, ',');) parts.push_back(part);
  return parts;
}

Options parse(int argc, char** argv) {
  Options o;
  for (int i = 1; i < argc; i += 2) {
    const std::string flag = argv[i];
    if (i + 1 >= argc) die(flag + ": expected a value");
    const std::string value = argv[i + 1];
    if (flag == "--model") {
      o.model = value;
    } else if (flag == "--mjcf") {
      o.mjcf = value;
    } else if (flag == "--isa") {
      o.isa = value;
    } else if (flag == "--environments") {
      o.environments = std::atoi(value.c_str());
    } else if (flag == "--repeats") {
      o.repeats = std::atoi(value.c_str());
    } else if (flag == "--seconds") {
      o.seconds = std::atof(value.c_str());
    } else if (flag == "--seed") {
      o.seed = std::strtoull(value.c_str(), nullptr, 10);
    } else if (flag == "--regime") {
      o.regimes = split(value);
    } else if (flag == "--threads") {
      o.threads.clear();
      for (const std::string& part : split(value)) o.threads.push_back(std::atoi(part.c_str()));
    } else {
      die("unknown flag '" + flag + "'");
    }
  }
  if (o.model.empty() || o.mjcf.empty()) die("expected --model FILE and --mjcf FILE");
  if (o.environments < 1 || o.repeats < 1 || !(o.seconds > 0)) die("expected positive sizes");
  for (const int t : o.threads)
    if (t < 1 || t > o.environments) die("--threads: expected 1 to the number of environments");
  for (const std::string& r : o.regimes)
    if (r != "rl" && r != "settled") die("--regime: expected rl or settled, got '" + r + "'");
  return o;
}

// splitmix64: one generator per environment, so that both engines draw alike.
struct Random {
  std::uint64_t state;
  double uniform() {
    std::uint64_t z = (state += 0x9e3779b97f4a7c15ull);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return static_cast<double>((z ^ (z >> 31)) >> 11) * 0x1p-53;
  }
  double around(double half_width) { return (2 * uniform() - 1) * half_width; }
};

// A share of the environments, run by one thread.
class Engine {
 public:
  virtual ~Engine() = default;
  virtual void control_step() = 0;  // kControlSteps physics steps of every environment
  virtual int environments() const = 0;
};

struct Regime {
  double amplitude;
  bool restarts;
};

// A start near the model's own configuration. Quaternions of free and ball joints are left as they
// are; everything else is moved.
struct Start {
  std::vector<double> qpos;
  std::vector<bool> moved;
  explicit Start(const sdpg::model::v1::Model& message)
      : qpos(message.qpos0().begin(), message.qpos0().end()), moved(qpos.size(), true) {
    for (int j = 0; j < message.joints().type_size(); ++j) {
      const int type = message.joints().type(j), first = message.joints().qposadr(j);
      const int quaternion = type == 0 ? first + 3 : first;
      for (int i = 0; type <= 1 && i < 4; ++i) moved[quaternion + i] = false;
    }
  }
  double draw(std::size_t i, Random& random) const {
    return qpos[i] + (moved[i] ? random.around(kStartNoise) : 0);
  }
};

class MujocoEngine : public Engine {
 public:
  MujocoEngine(const mjModel* m, const Task& task, const Start& start, Regime regime, int first,
               int count, std::uint64_t seed)
      : m_(m), task_(task), start_(start), regime_(regime) {
    for (int e = 0; e < count; ++e) {
      data_.push_back(mj_makeData(m));
      random_.push_back({seed + static_cast<std::uint64_t>(first + e) * 1000003});
      age_.push_back(0);
      restart(e);
    }
  }
  ~MujocoEngine() override {
    for (mjData* d : data_) mj_deleteData(d);
  }
  void control_step() override {
    for (std::size_t e = 0; e < data_.size(); ++e) {
      mjData* d = data_[e];
      for (int i = 0; i < m_->nu; ++i) d->ctrl[i] = random_[e].around(regime_.amplitude);
      for (int s = 0; s < kControlSteps; ++s) mj_step(m_, d);
      if (regime_.restarts && (task_.ends(d->qpos[task_.height]) || ++age_[e] >= kEpisode))
        restart(e);
    }
  }
  int environments() const override { return static_cast<int>(data_.size()); }

 private:
  void restart(std::size_t e) {
    mjData* d = data_[e];
    for (int i = 0; i < m_->nq; ++i) d->qpos[i] = start_.draw(i, random_[e]);
    for (int i = 0; i < m_->nv; ++i) d->qvel[i] = d->qacc_warmstart[i] = 0;
    age_[e] = 0;
  }
  const mjModel* m_;
  const Task& task_;
  const Start& start_;
  Regime regime_;
  std::vector<mjData*> data_;
  std::vector<Random> random_;
  std::vector<int> age_;
};

class CoreEngine : public Engine {
 public:
  CoreEngine(const Model& m, const Kernels& k, const Task& task, const Start& start, Regime regime,
             int first, int count, std::uint64_t seed)
      : m_(m), k_(k), task_(task), start_(start), regime_(regime), count_(count) {
    const int blocks = (count + k.lanes - 1) / k.lanes;
    const std::size_t row = static_cast<std::size_t>(k.scalar_bytes) * k.lanes;
    const int counts[] = {nq(m), nv(m), nu(m), nv(m), nbody(m) * 3, nbody(m) * 4, nbody(m) * 3};
    block_bytes_ = 0;
    for (const int c : counts) block_bytes_ += (row * c + 63) / 64 * 64;
    block_bytes_ += 64 * 4;
    scratch_bytes_ = k.scratch_bytes(m);
    memory_.reset(static_cast<unsigned char*>(
        std::aligned_alloc(64, block_bytes_ * blocks + scratch_bytes_ + 64)));
    std::memset(memory_.get(), 0, block_bytes_ * blocks);
    scratch_ = memory_.get() + block_bytes_ * blocks;
    for (int b = 0; b < blocks; ++b) {
      unsigned char* at = memory_.get() + block_bytes_ * b;
      void* arrays[7];
      for (int a = 0; a < 7; ++a) {
        arrays[a] = at;
        at += (row * counts[a] + 63) / 64 * 64;
      }
      BlockView view{};
      view.qpos = arrays[0];
      view.qvel = arrays[1];
      view.ctrl = arrays[2];
      view.qacc_warmstart = arrays[3];
      view.xpos = arrays[4];
      view.xquat = arrays[5];
      view.xipos = arrays[6];
      view.status = reinterpret_cast<std::uint32_t*>(at);
      view_.push_back(view);
    }
    for (int e = 0; e < count; ++e) {
      random_.push_back({seed + static_cast<std::uint64_t>(first + e) * 1000003});
      age_.push_back(0);
      restart(e);
    }
  }
  void control_step() override {
    for (std::size_t b = 0; b < view_.size(); ++b) {
      const BlockView& view = view_[b];
      const int begin = static_cast<int>(b) * k_.lanes;
      const int lanes = std::min(k_.lanes, count_ - begin);
      auto* ctrl = static_cast<float*>(view.ctrl);
      for (int l = 0; l < lanes; ++l)
        for (int i = 0; i < nu(m_); ++i)
          ctrl[i * k_.lanes + l] = static_cast<float>(random_[begin + l].around(regime_.amplitude));
      k_.step(m_, view, scratch_, kControlSteps);
      if (!regime_.restarts) continue;
      const float* height = static_cast<float*>(view.qpos) + task_.height * k_.lanes;
      for (int l = 0; l < lanes; ++l)
        if (task_.ends(height[l]) || ++age_[begin + l] >= kEpisode) restart(begin + l);
    }
  }
  int environments() const override { return count_; }
  double bytes_per_environment() const {
    return (static_cast<double>(block_bytes_) * view_.size() + scratch_bytes_) / count_;
  }
  int faults() const {
    int n = 0;
    for (int e = 0; e < count_; ++e) n += view_[e / k_.lanes].status[e % k_.lanes] != 0;
    return n;
  }

 private:
  void restart(int e) {
    const BlockView& view = view_[e / k_.lanes];
    const int lane = e % k_.lanes;
    for (int i = 0; i < nq(m_); ++i)
      static_cast<float*>(view.qpos)[i * k_.lanes + lane] =
          static_cast<float>(start_.draw(i, random_[e]));
    for (int i = 0; i < nv(m_); ++i) {
      static_cast<float*>(view.qvel)[i * k_.lanes + lane] = 0;
      static_cast<float*>(view.qacc_warmstart)[i * k_.lanes + lane] = 0;
    }
    age_[e] = 0;
  }
  struct Free {
    void operator()(unsigned char* p) const { std::free(p); }
  };
  const Model& m_;
  const Kernels& k_;
  const Task& task_;
  const Start& start_;
  Regime regime_;
  int count_;
  std::size_t block_bytes_, scratch_bytes_;
  std::unique_ptr<unsigned char, Free> memory_;
  unsigned char* scratch_;
  std::vector<BlockView> view_;
  std::vector<Random> random_;
  std::vector<int> age_;
};

using Engines = std::vector<std::unique_ptr<Engine>>;

double processor_seconds() {
  timespec t;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
}

// Physics steps per second, all threads together.
struct Rate {
  double wall = 0, processor = 0;
};

// Runs an engine until it has had about `seconds` of processor time.
Rate measure(Engine& engine, double seconds) {
  using Clock = std::chrono::steady_clock;
  const auto start = Clock::now();
  const double start_processor = processor_seconds();
  double steps = 0, used = 0;
  while (used < seconds) {
    engine.control_step();
    steps += kControlSteps * engine.environments();
    used = processor_seconds() - start_processor;
  }
  return {steps / std::chrono::duration<double>(Clock::now() - start).count(), steps / used};
}

// The same of all engines at once, each on a thread of its own.
Rate measure(const Engines& engines, double seconds) {
  std::vector<Rate> rate(engines.size());
  std::vector<std::thread> workers;
  for (std::size_t t = 1; t < engines.size(); ++t)
    workers.emplace_back([&, t] { rate[t] = measure(*engines[t], seconds); });
  rate[0] = measure(*engines[0], seconds);
  for (std::thread& worker : workers) worker.join();
  Rate total;
  for (const Rate& r : rate) {
    total.wall += r.wall;
    total.processor += r.processor;
  }
  return total;
}

// Both engines with one number of threads, and what was measured of them.
struct Contest {
  Engines ours, theirs;
  double bytes = 0;  // of the core, per environment
  std::vector<double> our_rate, their_rate, ratio, ratio_wall, scaling;
};

void run_ahead(const Engines& engines, int control_steps) {
  std::vector<std::thread> workers;
  for (const auto& engine : engines)
    workers.emplace_back([&engine, control_steps] {
      for (int i = 0; i < control_steps; ++i) engine->control_step();
    });
  for (std::thread& worker : workers) worker.join();
}

// How much faster all engines together are than the mean of each alone: the same environments both
// times, because how long a step takes depends on how they lie.
double scaling(const Engines& engines, double seconds) {
  if (engines.size() == 1) return 1;
  double alone = 0;
  for (const auto& engine : engines)
    alone += measure(*engine, seconds).wall / static_cast<double>(engines.size());
  return measure(engines, seconds).wall / alone;
}

double median(std::vector<double> x) {
  std::sort(x.begin(), x.end());
  return x.size() % 2 ? x[x.size() / 2] : 0.5 * (x[x.size() / 2 - 1] + x[x.size() / 2]);
}

// MuJoCo 2.2.2 does not know attributes of newer lights, which physics does not need.
std::string without_lights(std::string xml) {
  for (std::size_t at; (at = xml.find("<light")) != std::string::npos;) {
    const std::size_t end = xml.find("/>", at);
    if (end == std::string::npos) die("--mjcf: a light does not end with '/>'");
    xml.erase(at, end + 2 - at);
  }
  return xml;
}

mjModel* load_mjcf(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) die("cannot read " + path);
  std::stringstream text;
  text << file.rdbuf();
  const std::string xml = without_lights(text.str());
  const auto vfs = std::make_unique<mjVFS>();
  mj_defaultVFS(vfs.get());
  mj_makeEmptyFileVFS(vfs.get(), "model.xml", static_cast<int>(xml.size()));
  std::memcpy(vfs->filedata[0], xml.data(), xml.size());
  char error[500] = "";
  mjModel* m = mj_loadXML("model.xml", vfs.get(), error, sizeof error);
  mj_deleteVFS(vfs.get());
  if (m == nullptr) die(path + ": " + error);
  return m;
}

}  // namespace

int main(int argc, char** argv) {
  const Options o = parse(argc, argv);
  std::ifstream file(o.model, std::ios::binary);
  sdpg::model::v1::Model message;
  if (!file || !message.ParseFromIstream(&file)) die("cannot read a model from " + o.model);
  std::string error;
  const std::shared_ptr<const Model> model = sdpg::core::make_model(message, &error);
  if (!model) die(error);
  const Kernels* kernels =
      sdpg::core::select_kernels(sdpg::core::Precision::kFloat32, o.isa, &error);
  if (kernels == nullptr) die(error);
  const Task* task = nullptr;
  for (const Task& t : kTasks)
    if (message.name() == t.name) task = &t;
  if (task == nullptr) die("no regimes are defined for model '" + message.name() + "'");
  mjModel* mujoco = load_mjcf(o.mjcf);
  if (mujoco->nq != nq(*model) || mujoco->nv != nv(*model) || mujoco->nu != nu(*model))
    die(o.model + " and " + o.mjcf + " are different models");

  const Start start(message);
  for (const std::string& name : o.regimes) {
    const Regime regime = name == "rl" ? Regime{1.0, true} : Regime{0.1, false};
    std::vector<Contest> contests;
    for (const int threads : o.threads) {
      Contest& contest = contests.emplace_back();
      for (int t = 0, first = 0; t < threads; ++t) {
        const int count = o.environments / threads + (t < o.environments % threads ? 1 : 0);
        auto core = std::make_unique<CoreEngine>(*model, *kernels, *task, start, regime, first,
                                                 count, o.seed);
        contest.bytes += core->bytes_per_environment() * count / o.environments;
        contest.ours.push_back(std::move(core));
        contest.theirs.push_back(
            std::make_unique<MujocoEngine>(mujoco, *task, start, regime, first, count, o.seed));
        first += count;
      }
      const int warm_up = regime.restarts ? 150 : 400;
      run_ahead(contest.ours, warm_up);
      run_ahead(contest.theirs, warm_up);
    }
    for (int r = 0; r < o.repeats; ++r) {
      for (Contest& contest : contests) {
        const Rate mujoco_now = measure(contest.theirs, o.seconds);
        const Rate core_now = measure(contest.ours, o.seconds);
        contest.their_rate.push_back(mujoco_now.wall);
        contest.our_rate.push_back(core_now.wall);
        contest.ratio.push_back(core_now.processor / mujoco_now.processor);
        contest.ratio_wall.push_back(core_now.wall / mujoco_now.wall);
        contest.scaling.push_back(scaling(contest.ours, o.seconds));
      }
    }
    for (const Contest& contest : contests) {
      const auto [low, high] = std::minmax_element(contest.ratio.begin(), contest.ratio.end());
      int faults = 0;
      for (const auto& engine : contest.ours) faults += static_cast<CoreEngine&>(*engine).faults();
      std::printf(
          "{\"model\":\"%s\",\"regime\":\"%s\",\"threads\":%zu,\"environments\":%d,\"isa\":\"%s\","
          "\"mujoco_version\":\"%s\",\"ours_steps_per_s\":%.0f,\"mujoco_steps_per_s\":%.0f,"
          "\"ratio\":%.2f,\"ratio_min\":%.2f,\"ratio_max\":%.2f,\"ratio_wall\":%.2f,"
          "\"scaling\":%.2f,\"repeats\":%d,\"bytes_per_env\":%.0f,\"faulty_environments\":%d}\n",
          message.name().c_str(), name.c_str(), contest.ours.size(), o.environments, kernels->isa,
          mj_versionString(), median(contest.our_rate), median(contest.their_rate),
          median(contest.ratio), *low, *high, median(contest.ratio_wall), median(contest.scaling),
          o.repeats, contest.bytes, faults);
      std::fflush(stdout);
    }
  }
  mj_deleteModel(mujoco);
  return 0;
}
