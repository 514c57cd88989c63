// Frames per second of the renderer against MuJoCo 2.2.2's own through OSMesa, of the same poses,
// in the same minutes, on one thread each.
//
//   bench_render --model hopper.binpb --mjcf tasks/hopper/model.xml --camera side
//       [--size 84] [--repeats 9] [--seconds 0.2] [--isa avx2] [--seed 1]
//
// Poses are drawn around the model's zero configuration. Every repeat runs MuJoCo, ours, and ours
// with every light's shadow in turn; ratios are taken within a repeat, because other users of the
// machine move all of them, and all rates are per second of processor time. MuJoCo draws without
// shadows, reflections, sky, fog and multisampling; its update of the scene and the reading of the
// pixels are in the timed loop, its kinematics are not. One JSON line.
#include <GL/osmesa.h>
#include <mujoco/mujoco.h>
#include <time.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <functional>
#include <memory>
#include <sstream>
#include <string>
#include <vector>

#include "render/renderer.h"
#include "sdpg/model/v1/model.pb.h"
#include "sdpg/view/v1/view.pb.h"

namespace {

using namespace sdpg::render;

[[noreturn]] void die(const std::string& line) {
  std::fprintf(stderr, "bench_render: %s\n", line.c_str());
  std::exit(2);
}

struct Options {
  std::string model, mjcf, camera, isa;
  int size = 84, repeats = 9;
  double seconds = 0.2;
  std::uint64_t seed = 1;
};

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
    } else if (flag == "--camera") {
      o.camera = value;
    } else if (flag == "--isa") {
      o.isa = value;
    } else if (flag == "--size") {
      o.size = std::atoi(value.c_str());
    } else if (flag == "--repeats") {
      o.repeats = std::atoi(value.c_str());
    } else if (flag == "--seconds") {
      o.seconds = std::atof(value.c_str());
    } else if (flag == "--seed") {
      o.seed = std::strtoull(value.c_str(), nullptr, 10);
    } else {
      die("unknown flag '" + flag + "'");
    }
  }
  if (o.model.empty() || o.mjcf.empty() || o.camera.empty())
    die("expected --model FILE, --mjcf FILE and --camera NAME");
  if (o.size < 1 || o.size > 4096 || o.repeats < 1 || !(o.seconds > 0))
    die("expected positive sizes, at most 4096 pixels");
  return o;
}

// splitmix64.
double uniform(std::uint64_t* state) {
  std::uint64_t z = (*state += 0x9e3779b97f4a7c15ull);
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
  return static_cast<double>((z ^ (z >> 31)) >> 11) * 0x1p-53;
}

// MuJoCo 2.2.2 spells a directional light differently.
mjModel* load_mjcf(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) die("cannot read " + path);
  std::stringstream text;
  text << file.rdbuf();
  std::string xml = text.str();
  const std::string ours = "type=\"directional\"", theirs = "directional=\"true\"";
  for (std::size_t at; (at = xml.find(ours)) != std::string::npos;)
    xml.replace(at, ours.size(), theirs);
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

double processor_seconds() {
  timespec t;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
}

// Calls draw(0), draw(1), … until about `seconds` of processor time are used; calls per second.
double measure(double seconds, const std::function<void(int)>& draw) {
  const double start = processor_seconds();
  double used = 0;
  int frames = 0;
  while (used < seconds) {
    draw(frames++);
    used = processor_seconds() - start;
  }
  return frames / used;
}

double median(std::vector<double> x) {
  std::sort(x.begin(), x.end());
  return x.size() % 2 ? x[x.size() / 2] : 0.5 * (x[x.size() / 2 - 1] + x[x.size() / 2]);
}

struct Free {
  void operator()(void* p) const { std::free(p); }
};

// A scene, its only view and the memory to draw it.
struct Ours {
  std::shared_ptr<const Scene> scene;
  View view;
  std::unique_ptr<void, Free> scratch;
  std::vector<unsigned char> pixels;

  Ours(const sdpg::model::v1::Model& model, const Options& o, const Renderer& renderer,
       bool shadows) {
    sdpg::view::v1::View message;
    message.set_name("bench");
    message.set_camera(o.camera);
    message.set_width(static_cast<std::uint32_t>(o.size));
    message.set_height(static_cast<std::uint32_t>(o.size));
    message.set_kind(sdpg::view::v1::IMAGE_KIND_RGB);
    message.set_frames(1);
    message.set_shadows(shadows);
    std::string error;
    scene = make_scene(model, &error);
    if (!scene || !make_view(*scene, message, &view, &error)) die(error);
    scratch.reset(std::aligned_alloc(64, (renderer.scratch_bytes(*scene, view) + 63) / 64 * 64));
    pixels.resize(frame_bytes(view));
  }
  void draw(const Renderer& renderer, const std::vector<float>& pose) {
    renderer.draw(*scene, view, pose.data(), {}, pixels.data(), scratch.get());
  }
};

constexpr int kPoses = 16;

}  // namespace

int main(int argc, char** argv) {
  const Options o = parse(argc, argv);
  std::ifstream file(o.model, std::ios::binary);
  sdpg::model::v1::Model message;
  if (!file || !message.ParseFromIstream(&file)) die("cannot read a model from " + o.model);
  std::string error;
  const Renderer* renderer = select_renderer(o.isa, &error);
  if (renderer == nullptr) die(error);
  Ours plain(message, o, *renderer, false);
  for (auto& light : *message.mutable_lights()) light.set_castshadow(true);
  Ours shadowed(message, o, *renderer, true);

  mjModel* m = load_mjcf(o.mjcf);
  if (m->nbody != nbody(*plain.scene)) die(o.model + " and " + o.mjcf + " are different models");
  const int camera = mj_name2id(m, mjOBJ_CAMERA, o.camera.c_str());
  if (camera < 0) die(o.mjcf + " has no camera '" + o.camera + "'");
  std::vector<mjData*> data;
  std::vector<std::vector<float>> poses;
  std::uint64_t random = o.seed;
  for (int i = 0; i < kPoses; ++i) {
    mjData* d = mj_makeData(m);
    for (int j = 0; j < m->njnt; ++j)
      if (m->jnt_type[j] == mjJNT_HINGE || m->jnt_type[j] == mjJNT_SLIDE)
        d->qpos[m->jnt_qposadr[j]] += 0.6 * uniform(&random) - 0.3;
    mj_forward(m, d);
    std::vector<float> pose;
    for (int b = 0; b < m->nbody; ++b) {
      for (int k = 0; k < 3; ++k) pose.push_back(static_cast<float>(d->xpos[3 * b + k]));
      for (int k = 0; k < 4; ++k) pose.push_back(static_cast<float>(d->xquat[4 * b + k]));
    }
    data.push_back(d);
    poses.push_back(pose);
  }

  std::vector<unsigned char> buffer(static_cast<std::size_t>(o.size) * o.size * 4);
  setenv("LP_NUM_THREADS", "0", 1);  // Mesa draws on this thread, whose time is counted
  OSMesaContext gl = OSMesaCreateContextExt(GL_RGBA, 24, 8, 8, nullptr);
  if (gl == nullptr || !OSMesaMakeCurrent(gl, buffer.data(), GL_UNSIGNED_BYTE, o.size, o.size))
    die("cannot open OSMesa");
  m->vis.quality.offsamples = 0;
  // MuJoCo cuts a plane into squares of size[2], and an infinite one into as many as reach the
  // horizon, most of its time. A few large ones show the same and flatter us least.
  for (int g = 0; g < m->ngeom; ++g) {
    if (m->geom_type[g] != mjGEOM_PLANE) continue;
    m->geom_size[3 * g] = m->geom_size[3 * g + 1] = 20;
    m->geom_size[3 * g + 2] = 10;
  }
  m->vis.global.offwidth = m->vis.global.offheight = o.size;
  mjvScene scene;
  mjv_defaultScene(&scene);
  mjv_makeScene(m, &scene, 1000);
  mjrContext context;
  mjr_defaultContext(&context);
  mjr_makeContext(m, &context, mjFONTSCALE_50);
  mjr_setBuffer(mjFB_OFFSCREEN, &context);
  for (const int flag : {mjRND_SHADOW, mjRND_REFLECTION, mjRND_SKYBOX, mjRND_FOG, mjRND_HAZE})
    scene.flags[flag] = 0;
  mjvOption option;
  mjv_defaultOption(&option);
  mjvCamera eye;
  mjv_defaultCamera(&eye);
  eye.type = mjCAMERA_FIXED;
  eye.fixedcamid = camera;
  mjvPerturb perturb;
  mjv_defaultPerturb(&perturb);
  const mjrRect viewport{0, 0, o.size, o.size};

  std::vector<double> our_rate, their_rate, shadow_rate, ratio, slowdown;
  for (int r = 0; r < o.repeats; ++r) {
    their_rate.push_back(measure(o.seconds, [&](int i) {
      mjv_updateScene(m, data[i % kPoses], &option, &perturb, &eye, mjCAT_ALL, &scene);
      mjr_render(viewport, &scene, &context);
      mjr_readPixels(buffer.data(), nullptr, viewport, &context);
    }));
    our_rate.push_back(
        measure(o.seconds, [&](int i) { plain.draw(*renderer, poses[i % kPoses]); }));
    shadow_rate.push_back(
        measure(o.seconds, [&](int i) { shadowed.draw(*renderer, poses[i % kPoses]); }));
    ratio.push_back(our_rate.back() / their_rate.back());
    slowdown.push_back(our_rate.back() / shadow_rate.back());
  }
  const auto [low, high] = std::minmax_element(ratio.begin(), ratio.end());
  std::printf(
      "{\"bench\":\"render\",\"model\":\"%s\",\"camera\":\"%s\",\"size\":%d,\"isa\":\"%s\","
      "\"mujoco\":\"%s\",\"frames_per_s\":%.0f,\"mujoco_frames_per_s\":%.0f,\"ratio\":%.1f,"
      "\"ratio_spread\":[%.1f,%.1f],\"shadow_frames_per_s\":%.0f,\"shadow_slowdown\":%.2f,"
      "\"repeats\":%d}\n",
      message.name().c_str(), o.camera.c_str(), o.size, renderer->isa, mj_versionString(),
      median(our_rate), median(their_rate), median(ratio), *low, *high, median(shadow_rate),
      median(slowdown), o.repeats);

  mjr_freeContext(&context);
  mjv_freeScene(&scene);
  OSMesaDestroyContext(gl);
  for (mjData* d : data) mj_deleteData(d);
  mj_deleteModel(m);
  return 0;
}
