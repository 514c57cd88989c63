// What gpu_check.sh runs on a machine with a GPU: the CUDA mapping against the CPU's on compiled
// models, as two tables. Of the physics: parity, determinism, containment of faults, memory and
// speed. Of the pictures: pixels that differ from the CPU's, which none may, and frames a second.
// Exit code 0 when all checks hold, 1 when one does not, 2 when there is no device.
//
//   gpu_check [--emulated] [--seconds S] FOLDER   with
//   FOLDER/{hopper,walker,ant,humanoid}.{flat,scene}
//
// --emulated runs the checks, without the benchmark, on the CPU's stand-in for a device.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <random>
#include <sstream>
#include <string>
#include <vector>

#include "core/kernels.h"
#include "core/model.h"
#include "core/model/flat_model.h"
#include "cuda/device_renderer.h"
#include "cuda/environments.h"
#include "render/flat_scene.h"

using namespace sdpg;

namespace {

constexpr std::uint64_t kSeed = 20260514;

double now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

std::uint64_t hash(const void* bytes, std::size_t count) {
  std::uint64_t h = 0xcbf29ce484222325u;
  for (std::size_t i = 0; i < count; ++i)
    h = (h ^ static_cast<const unsigned char*>(bytes)[i]) * 0x100000001b3u;
  return h;
}

// Positions, velocities and controls of environments, [e][index].
struct States {
  std::vector<double> qpos, qvel, ctrl;
};

// `mild`: near the reference pose, else as wild as a fall.
States random_states(const core::Model& m, std::uint32_t count, double scale, std::uint64_t seed) {
  std::mt19937_64 random(seed);
  std::uniform_real_distribution<double> one(-1, 1);
  States s;
  for (std::uint32_t e = 0; e < count; ++e) {
    for (int i = 0; i < m.nq; ++i) s.qpos.push_back(m.d.qpos0[i] + 0.3 * scale * one(random));
    for (int i = 0; i < m.nv; ++i) s.qvel.push_back(2 * scale * one(random));
    for (int i = 0; i < m.nu; ++i) s.ctrl.push_back(one(random));
    // The height of a floating body, so that some stand and some lie in the floor.
    if (m.njnt > 0 && m.jnt_type[0] == core::JointType::kFree)
      s.qpos[s.qpos.size() - m.nq + 2] = m.d.qpos0[2] * (0.6 + 0.4 * std::abs(one(random)));
  }
  return s;
}

// The CPU's environments, in blocks of the table's lanes.
class Cpu {
 public:
  Cpu(const core::Model& m, const core::Kernels& k, std::uint32_t count)
      : m_(m), k_(k), count_(count) {
    const std::uint32_t lanes = static_cast<std::uint32_t>(k.lanes);
    blocks_ = (count + lanes - 1) / lanes;
    int row = 0;
    for (int a = 0; a < kArrays; ++a) {
      row_[a] = row;
      const int counts[kArrays] = {m.nq,        m.nv,        m.nu, m.nv,         3 * m.nbody,
                                   4 * m.nbody, 3 * m.nbody, m.na, m.nparameters};
      row += (counts[a] + 15) / 16 * 16;
    }
    stride_ = static_cast<std::size_t>(row) * lanes;
    numbers_ = zeroed<float>(stride_ * blocks_);
    status_ = zeroed<std::uint32_t>(std::size_t{blocks_} * lanes);
    scratch_ = zeroed<unsigned char>(k.scratch_bytes(m));
  }
  ~Cpu() {
    std::free(numbers_);
    std::free(status_);
    std::free(scratch_);
  }
  Cpu(const Cpu&) = delete;
  enum Array { kQpos, kQvel, kCtrl, kWarm, kXpos, kXquat, kXipos, kAct, kParameters, kArrays };

  float& at(Array a, std::uint32_t e, int i) {
    const std::uint32_t lanes = static_cast<std::uint32_t>(k_.lanes);
    return numbers_[stride_ * (e / lanes) + static_cast<std::size_t>(row_[a] + i) * lanes +
                    e % lanes];
  }
  void step(int substeps) {
    for (std::uint32_t b = 0; b < blocks_; ++b) k_.step(m_, view(b), scratch_, substeps);
  }
  void kinematics() {
    for (std::uint32_t b = 0; b < blocks_; ++b) k_.kinematics(m_, view(b), scratch_);
  }

 private:
  core::BlockView view(std::uint32_t b) {
    const auto p = [&](Array a) {
      return numbers_ + stride_ * b + static_cast<std::size_t>(row_[a]) * k_.lanes;
    };
    return {p(kQpos), p(kQvel),      p(kCtrl),  p(kWarm),
            p(kXpos), p(kXquat),     p(kXipos), status_ + std::size_t{b} * k_.lanes,
            p(kAct),  p(kParameters)};
  }
  template <class X>
  static X* zeroed(std::size_t count) {
    const std::size_t bytes = (count * sizeof(X) + 127) / 64 * 64;
    void* memory = std::aligned_alloc(64, bytes);
    if (memory == nullptr) std::abort();
    std::memset(memory, 0, bytes);
    return static_cast<X*>(memory);
  }
  const core::Model& m_;
  const core::Kernels& k_;
  std::uint32_t count_, blocks_;
  int row_[kArrays];
  std::size_t stride_;
  float* numbers_;
  std::uint32_t* status_;
  unsigned char* scratch_;
};

void load(cuda::Environments& environments, const core::Model& m, const States& s,
          std::uint32_t count, std::uint32_t shift = 0) {
  const cuda::Rows& rows = environments.args.state.rows;
  for (std::uint32_t e = 0; e < count; ++e) {
    const std::uint32_t to = (e + shift) % count;
    for (int i = 0; i < m.nq; ++i)
      environments.number(to, rows.qpos + i) = static_cast<float>(s.qpos[e * m.nq + i]);
    for (int i = 0; i < m.nv; ++i) {
      environments.number(to, rows.qvel + i) = static_cast<float>(s.qvel[e * m.nv + i]);
      environments.number(to, rows.warmstart + i) = 0;
    }
    for (int i = 0; i < m.nu; ++i)
      environments.number(to, rows.ctrl + i) = static_cast<float>(s.ctrl[e * m.nu + i]);
  }
  environments.put();
}

std::unique_ptr<cuda::Environments> make(cuda::Device& device, const core::Model& m,
                                         std::uint32_t count) {
  std::string error;
  auto out = cuda::Environments::create(device, m, count, &error);
  if (!out) {
    std::fprintf(stderr, "gpu_check: %s\n", error.c_str());
    std::exit(1);
  }
  return out;
}

// Largest difference of a velocity after one step from the same state, against the largest change
// of any velocity of its environment; both in float32.
double parity(cuda::Device& device, const core::Model& m, const core::Kernels& k,
              std::uint32_t count) {
  double worst = 0;
  for (const double scale : {0.1, 1.0}) {
    const States s = random_states(m, count, scale, kSeed);
    Cpu cpu(m, k, count);
    const auto gpu = make(device, m, count);
    load(*gpu, m, s, count);
    for (std::uint32_t e = 0; e < count; ++e) {
      for (int i = 0; i < m.nq; ++i)
        cpu.at(Cpu::kQpos, e, i) = static_cast<float>(s.qpos[e * m.nq + i]);
      for (int i = 0; i < m.nv; ++i)
        cpu.at(Cpu::kQvel, e, i) = static_cast<float>(s.qvel[e * m.nv + i]);
      for (int i = 0; i < m.nu; ++i)
        cpu.at(Cpu::kCtrl, e, i) = static_cast<float>(s.ctrl[e * m.nu + i]);
    }
    cpu.step(1);
    gpu->step(1);
    gpu->get();
    const cuda::Rows& rows = gpu->args.state.rows;
    for (std::uint32_t e = 0; e < count; ++e) {
      double scale_of = 1e-2, difference = 0;
      for (int i = 0; i < m.nv; ++i) {
        const double before = static_cast<float>(s.qvel[e * m.nv + i]);
        const double a = cpu.at(Cpu::kQvel, e, i), b = gpu->number(e, rows.qvel + i);
        scale_of = std::max(scale_of, std::abs(a - before));
        difference = std::max(difference, std::abs(a - b));
        if (!(std::abs(b) < 1e10)) difference = 1e30;
      }
      worst = std::max(worst, difference / scale_of);
    }
  }
  return worst;
}

// Bits after many steps: the same again, and wherever in the batch an environment is.
bool deterministic(cuda::Device& device, const core::Model& m, std::uint32_t count, int launches,
                   int substeps) {
  const States s = random_states(m, count, 0.3, kSeed + 1);
  std::vector<std::vector<std::uint64_t>> seen;
  for (const std::uint32_t shift : {0u, 0u, 13u}) {
    const auto gpu = make(device, m, count);
    load(*gpu, m, s, count, shift);
    for (int t = 0; t < launches; ++t) gpu->step(substeps);
    gpu->get();
    std::vector<std::uint64_t> hashes(count);
    std::vector<float> state(gpu->args.state.rows.end);
    for (std::uint32_t e = 0; e < count; ++e) {
      for (std::uint32_t r = 0; r < state.size(); ++r)
        state[r] = gpu->number((e + shift) % count, r);
      hashes[e] = hash(state.data(), state.size() * sizeof(float));
    }
    seen.push_back(hashes);
  }
  return seen[0] == seen[1] && seen[0] == seen[2];
}

// A NaN in one environment is seen there and changes no other by a bit.
bool contained(cuda::Device& device, const core::Model& m, std::uint32_t count) {
  const States s = random_states(m, count, 0.3, kSeed + 2);
  const auto clean = make(device, m, count), poisoned = make(device, m, count);
  const std::uint32_t victim = count / 2;
  load(*clean, m, s, count);
  States bad = s;
  bad.qvel[victim * m.nv] = std::nan("");
  load(*poisoned, m, bad, count);
  clean->step(20);
  poisoned->step(20);
  clean->get();
  poisoned->get();
  const auto status = poisoned->status(), clean_status = clean->status();
  bool good = (status[victim] & core::kNonFinite) != 0;
  for (std::uint32_t e = 0; e < count; ++e) {
    if (e == victim) continue;
    good = good && status[e] == clean_status[e];
    for (std::uint32_t r = 0; r < clean->args.state.rows.end; ++r) {
      const float a = clean->number(e, r), b = poisoned->number(e, r);
      good = good && std::memcmp(&a, &b, sizeof a) == 0;
    }
  }
  return good;
}

// Physics steps a second with `count` environments, four steps a launch. `settled`: small controls
// and no new starts, so that the robots lie on the floor; else full controls, started anew every
// 100 launches.
double speed(cuda::Device& device, const core::Model& m, std::uint32_t count, bool settled,
             double seconds) {
  constexpr int kSubsteps = 4;
  States s = random_states(m, count, 0.1, kSeed + 3);
  if (settled)
    for (double& c : s.ctrl) c *= 0.1;
  const auto gpu = make(device, m, count);
  load(*gpu, m, s, count);
  const int settle = settled ? 250 : 5;
  for (int t = 0; t < settle; ++t) gpu->step(kSubsteps);
  device.synchronize();
  double spent = 0, steps = 0;
  while (spent < seconds) {
    const double started = now();
    for (int t = 0; t < 100; ++t) gpu->step(kSubsteps);
    device.synchronize();
    spent += now() - started;
    steps += 100.0 * kSubsteps * count;
    if (!settled) load(*gpu, m, s, count);
  }
  return steps / spent;
}

// ---- pictures -----------------------------------------------------------------------------------

// A scene and the poses of its bodies in some environments.
struct Gallery {
  std::string name;
  std::shared_ptr<const render::Scene> scene;
  std::uint32_t count;
  std::vector<float> poses;  // [count][nbody][7]
};

Gallery of_task(const std::string& name, std::shared_ptr<const render::Scene> scene,
                const core::Model& m, const core::Kernels& k, std::uint32_t count) {
  Gallery out{name, std::move(scene), count, {}};
  const States s = random_states(m, count, 0.5, kSeed + 4);
  Cpu cpu(m, k, count);
  for (std::uint32_t e = 0; e < count; ++e)
    for (int i = 0; i < m.nq; ++i)
      cpu.at(Cpu::kQpos, e, i) = static_cast<float>(s.qpos[e * m.nq + i]);
  cpu.kinematics();
  for (std::uint32_t e = 0; e < count; ++e) {
    for (int b = 0; b < m.nbody; ++b) {
      for (int i = 0; i < 3; ++i) out.poses.push_back(cpu.at(Cpu::kXpos, e, 3 * b + i));
      for (int i = 0; i < 4; ++i) out.poses.push_back(cpu.at(Cpu::kXquat, e, 4 * b + i));
    }
  }
  return out;
}

// Every shape, a mesh and a height field under a sun and a spot light, the camera among them.
Gallery of_shapes(std::uint32_t count) {
  auto scene = std::make_shared<render::Scene>();
  scene->nbody = 2;
  scene->parent = {0, 0};
  scene->mass = {0, 1};
  scene->subtree_mass = {1, 1};
  scene->ipos.resize(6);
  render::Camera camera{};
  const double along_x[] = {0.5, 0.5, -0.5, -0.5};
  std::copy_n(along_x, 4, camera.quat);
  camera.height = 2 * std::tan(M_PI / 6);
  scene->cameras = {camera};
  scene->camera_names = {"side"};
  std::mt19937_64 random(kSeed + 5);
  std::uniform_real_distribution<double> one(-1, 1);
  std::vector<float> corners, heights;
  for (int i = 0; i < 8; ++i)
    for (int axis = 0; axis < 3; ++axis) corners.push_back((i >> axis & 1) != 0 ? 0.4f : -0.4f);
  scene->meshes.push_back(
      render::make_mesh(corners, {0, 4, 6, 0, 6, 2, 1, 3, 7, 1, 7, 5, 0, 1, 5, 0, 5, 4,
                                  2, 6, 7, 2, 7, 3, 0, 2, 3, 0, 3, 1, 4, 5, 7, 4, 7, 6}));
  for (int i = 0; i < 12 * 17; ++i) heights.push_back(static_cast<float>(0.5 + 0.5 * one(random)));
  const double extents[] = {1, 1, 0.5, 0.1};
  scene->meshes.push_back(render::make_height_field(12, 17, extents, heights));
  for (const auto type : {render::kPlane, render::kHeightField, render::kSphere, render::kCapsule,
                          render::kEllipsoid, render::kCylinder, render::kBox, render::kMesh}) {
    render::Geom geom{};
    geom.id = geom.look = static_cast<int>(scene->geoms.size());
    geom.type = type;
    geom.body = type == render::kPlane ? 0 : 1;
    double quat[4], length = 0;
    for (double& q : quat) {
      q = one(random);
      length += q * q;
    }
    for (double& q : quat) q /= std::sqrt(length);
    render::turn_axes(quat, geom.axes);
    for (int i = 0; i < 3; ++i) {
      geom.pos[i] = i == 0 ? 2 + one(random) : one(random);
      geom.size[i] = static_cast<float>(0.3 + 0.15 * one(random));
      geom.extent[i] = geom.size[type == render::kSphere ? 0 : i];
      geom.albedo[i] = static_cast<float>(0.6 + 0.3 * one(random));
    }
    geom.specular = 0.5f;
    geom.exponent = 10;
    if (type == render::kCapsule || type == render::kCylinder) {
      geom.extent[1] = geom.size[0];
      geom.extent[2] = geom.size[1] + (type == render::kCapsule ? geom.size[0] : 0);
    }
    if (type == render::kPlane) {
      const double level[] = {1, 0, 0, 0};
      render::turn_axes(level, geom.axes);
      geom.pos[2] = -1.2;
      geom.size[0] = geom.size[1] = geom.extent[0] = geom.extent[1] = geom.extent[2] = 0;
    }
    if (type == render::kMesh) set_mesh(*scene->meshes[0], &geom);
    if (type == render::kHeightField) set_mesh(*scene->meshes[1], &geom);
    scene->geoms.push_back(geom);
  }
  for (const bool directional : {true, false}) {
    render::Light light{};
    light.directional = directional;
    light.castshadow = true;
    light.mount.pos[2] = 3;
    light.dir[0] = 0.3;
    light.dir[2] = -1;
    light.attenuation[0] = 1;
    light.cos_cutoff = 0.6f;
    light.exponent = 5;
    for (int c = 0; c < 3; ++c) light.diffuse[c] = light.specular[c] = 0.4f;
    scene->lights.push_back(light);
  }
  Gallery out{"shapes", scene, count, {}};
  for (std::uint32_t e = 0; e < count; ++e) {
    const float turn = 0.2f * static_cast<float>(one(random));
    for (const float x : {0.0f, 0.0f, 0.0f, 1.0f, 0.0f, 0.0f, 0.0f, 0.3f * turn, turn, -turn,
                          std::cos(turn), 0.0f, 0.0f, std::sin(turn)})
      out.poses.push_back(x);
  }
  return out;
}

render::View view_of(render::Kind kind, bool shadows, int frames) {
  render::View view{};
  view.name = "check";
  view.camera = 0;
  view.width = view.height = 84;
  view.frames = frames;
  view.kind = kind;
  view.near = 0.01f;
  view.far = 100;
  view.shadows = shadows;
  view.depth_noise = kind == render::Kind::kDepth ? 0.01f : 0;
  return view;
}

// The scene and some environments' poses on the device, and room for stacks.
struct Hung {
  Hung(cuda::Device& device, const Gallery& gallery, const render::View& view,
       std::uint32_t environments)
      : bytes(frame_bytes(view) * static_cast<std::size_t>(view.frames) * environments) {
    std::string error;
    renderer = cuda::DeviceRenderer::create(device, *gallery.scene, &error);
    const std::size_t numbers = gallery.poses.size() / gallery.count;
    pose = cuda::DeviceMemory(device, environments * numbers * sizeof(float));
    fresh = cuda::DeviceMemory(device, environments);  // zeros
    stacks[0] = cuda::DeviceMemory(device, bytes);
    stacks[1] = cuda::DeviceMemory(device, bytes);
    if (!renderer || !pose || !fresh || !stacks[0] || !stacks[1]) {
      std::fprintf(stderr, "gpu_check: no memory for %u pictures\n", environments);
      std::exit(1);
    }
    for (std::uint32_t e = 0; e < environments; e += gallery.count)
      device.upload(pose.data() + e * numbers * sizeof(float), gallery.poses.data(),
                    std::min(gallery.count, environments - e) * numbers * sizeof(float));
    args.view = view;
    args.environments = environments;
    args.pose = reinterpret_cast<const float*>(pose.data());
    args.fresh = fresh.data();
    args.seed = kSeed;
  }
  // Picture after picture, from one memory into the other.
  void draw() {
    args.from = stacks[args.picture % 2].data();
    args.picture += 1;
    args.to = stacks[args.picture % 2].data();
    renderer->draw(args);
  }

  std::size_t bytes;
  std::unique_ptr<cuda::DeviceRenderer> renderer;
  cuda::DeviceMemory pose, fresh, stacks[2];
  cuda::DrawArgs args{};
};

// Pixels that are not the CPU's, and all of them.
struct Difference {
  std::uint64_t pixels = 0, of = 0;
};
Difference compare_pictures(cuda::Device& device, const Gallery& gallery,
                            const render::Renderer& renderer) {
  Difference out;
  const std::size_t numbers = gallery.poses.size() / gallery.count;
  for (const bool shadows : {false, true}) {
    for (const auto kind :
         {render::Kind::kRgb, render::Kind::kDepth, render::Kind::kSegmentation}) {
      if (shadows && kind != render::Kind::kRgb) continue;
      const render::View view = view_of(kind, shadows, 1);
      Hung hung(device, gallery, view, gallery.count);
      hung.draw();
      std::vector<unsigned char> drawn(hung.bytes), expected(frame_bytes(view));
      device.download(drawn.data(), hung.args.to, hung.bytes);
      const std::size_t scratch_bytes =
          (renderer.scratch_bytes(*gallery.scene, view) + 63) / 64 * 64;
      void* scratch = std::aligned_alloc(64, scratch_bytes);
      if (scratch == nullptr) std::abort();
      for (std::uint32_t e = 0; e < gallery.count; ++e) {
        renderer.draw(*gallery.scene, view, gallery.poses.data() + e * numbers,
                      {kSeed, e, hung.args.picture}, expected.data(), scratch);
        const unsigned char* own = drawn.data() + e * expected.size();
        const std::size_t size = render::value_bytes(kind);
        const std::size_t pixels = static_cast<std::size_t>(view.width) * view.height;
        for (std::size_t i = 0; i < pixels; ++i) {
          bool same = true;
          for (int plane = 0; plane < render::planes(kind); ++plane) {
            const std::size_t at = (static_cast<std::size_t>(plane) * pixels + i) * size;
            same = same && std::memcmp(own + at, expected.data() + at, size) == 0;
          }
          out.pixels += !same;
        }
        out.of += pixels;
      }
      std::free(scratch);
    }
  }
  return out;
}

// Frames a second of 84 x 84 RGB into stacks of three.
double frame_speed(cuda::Device& device, const Gallery& gallery, std::uint32_t count, bool shadows,
                   double seconds) {
  Hung hung(device, gallery, view_of(render::Kind::kRgb, shadows, 3), count);
  for (int i = 0; i < 3; ++i) hung.draw();
  device.synchronize();
  double spent = 0, frames = 0;
  while (spent < seconds) {
    const double started = now();
    for (int i = 0; i < 20; ++i) hung.draw();
    device.synchronize();
    spent += now() - started;
    frames += 20.0 * count;
  }
  return frames / spent;
}

}  // namespace

int main(int argc, char** argv) {
  bool emulated = false;
  double seconds = 2;
  std::string folder;
  for (int i = 1; i < argc; ++i) {
    const std::string argument = argv[i];
    if (argument == "--emulated")
      emulated = true;
    else if (argument == "--seconds" && i + 1 < argc)
      seconds = std::atof(argv[++i]);
    else
      folder = argument;
  }
  if (folder.empty() || !(seconds > 0)) {
    std::fprintf(stderr, "gpu_check [--emulated] [--seconds S] FOLDER\n");
    return 2;
  }
  std::string error;
  const auto device = emulated ? cuda::Device::emulated(1, false) : cuda::Device::open(0, &error);
  if (!device) {
    std::fprintf(stderr, "gpu_check: %s\n", error.c_str());
    return 2;
  }
  const core::Kernels* k = core::select_kernels(core::Precision::kFloat32, "", &error);
  if (k == nullptr) {
    std::fprintf(stderr, "gpu_check: %s\n", error.c_str());
    return 1;
  }
  std::printf("device %s, CPU %s, seed %llu\n", device->name(), k->isa,
              static_cast<unsigned long long>(kSeed));
  std::printf("%-9s %10s %7s %7s %9s %9s %9s", "model", "parity", "same", "faults", "state B",
              "shared B", "B/env");
  const std::uint32_t sizes[] = {4096, 16384, 65536};
  if (!emulated)
    for (const std::uint32_t count : sizes) std::printf("  settled %5u   random %5u", count, count);
  std::printf("\n");

  bool all = true;
  std::vector<Gallery> galleries;
  for (const char* name : {"hopper", "walker", "ant", "humanoid"}) {
    std::ifstream in(folder + "/" + name + ".flat", std::ios::binary);
    std::stringstream bytes;
    bytes << in.rdbuf();
    const auto model = core::load_flat_model(bytes.str(), &error);
    if (!in || !model) {
      std::fprintf(stderr, "gpu_check: %s/%s.flat: %s\n", folder.c_str(), name,
                   in ? error.c_str() : "cannot be read");
      return 1;
    }
    const core::Model& m = *model;
    const double difference = parity(*device, m, *k, emulated ? 48 : 4096);
    const bool same =
        emulated ? deterministic(*device, m, 40, 4, 5) : deterministic(*device, m, 4096, 250, 4);
    const bool faults = contained(*device, m, emulated ? 40 : 4096);
    const auto full = make(*device, m, emulated ? 64 : 65536);
    const bool good = difference < 1e-4 && same && faults;
    all = all && good;
    std::printf("%-9s %10.2e %7s %7s %9u %9u %9.0f", name, difference, same ? "yes" : "NO",
                faults ? "held" : "SPREAD", full->args.state.rows.end * 4,
                full->args.plan.near_bytes,
                static_cast<double>(full->bytes()) / full->args.state.environments);
    if (!emulated)
      for (const std::uint32_t count : sizes)
        std::printf("  %10.2f M/s   %9.2f M/s", speed(*device, m, count, true, seconds) / 1e6,
                    speed(*device, m, count, false, seconds) / 1e6);
    std::printf("%s\n", good ? "" : "  FAILED");
    std::fflush(stdout);

    std::ifstream scene_in(folder + "/" + name + ".scene", std::ios::binary);
    std::stringstream scene_bytes;
    scene_bytes << scene_in.rdbuf();
    auto scene = render::load_flat_scene(scene_bytes.str(), &error);
    if (!scene_in || !scene) {
      std::fprintf(stderr, "gpu_check: %s/%s.scene: %s\n", folder.c_str(), name,
                   scene_in ? error.c_str() : "cannot be read");
      return 1;
    }
    galleries.push_back(of_task(name, std::move(scene), m, *k, emulated ? 2 : 256));
  }

  galleries.push_back(of_shapes(emulated ? 2 : 256));
  const render::Renderer* renderer = render::select_renderer("", &error);
  if (renderer == nullptr) {
    std::fprintf(stderr, "gpu_check: %s\n", error.c_str());
    return 1;
  }
  std::printf("\n%-9s %6s %20s", "pictures", "shapes", "pixels that differ");
  const std::uint32_t nominals[] = {64, 1024, 8192};
  if (!emulated)
    for (const std::uint32_t count : nominals)
      std::printf("   84 x 84 %5u    shadows %5u", count, count);
  std::printf("\n");
  for (const Gallery& gallery : galleries) {
    const Difference difference = compare_pictures(*device, gallery, *renderer);
    all = all && difference.pixels == 0;
    std::printf("%-9s %6zu %9llu /%9llu", gallery.name.c_str(), gallery.scene->geoms.size(),
                static_cast<unsigned long long>(difference.pixels),
                static_cast<unsigned long long>(difference.of));
    if (!emulated)
      for (const std::uint32_t count : nominals)
        std::printf("  %10.3f M/s   %9.3f M/s",
                    frame_speed(*device, gallery, count, false, seconds) / 1e6,
                    frame_speed(*device, gallery, count, true, seconds) / 1e6);
    std::printf("%s\n", difference.pixels == 0 ? "" : "  FAILED");
    std::fflush(stdout);
  }
  std::printf("%s\n", all ? "all checks hold" : "a check FAILED");
  return all ? 0 : 1;
}
