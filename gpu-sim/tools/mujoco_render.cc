// What MuJoCo's own renderer shows (MuJoCo 2.2.2 through OSMesa): the answers that our renderer is
// compared with in test/parity/render.test.ts.
//
//   mujoco_render MODEL.xml WIDTH HEIGHT NEAR FAR [QUALITY]
//
// NEAR and FAR in m. QUALITY (default 200): slices and stacks of round shapes and half the squares
// that a plane or side of a box is made of; OpenGL lights corners and mixes between them, so the
// more of them, the closer its picture is to the exact one. Shadows, reflections, sky, fog and
// multisampling are off, sites are not drawn.
//
// Reads a picture a line from standard input: the number of a camera, then nq numbers of qpos.
// Answers each on standard output, rows from the top down, native byte order:
//   uint8   [height][width][3]  red, green, blue
//   float32 [height][width]     depth along the camera's axis in m; FAR where nothing is drawn
//   int32   [height][width]     geom id, -1 where nothing is drawn
#include <GL/osmesa.h>
#include <mujoco/mujoco.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <iostream>
#include <sstream>
#include <string>
#include <vector>

namespace {

[[noreturn]] void die(const std::string& line) {
  std::fprintf(stderr, "mujoco_render: %s\n", line.c_str());
  std::exit(2);
}

// OpenGL's pixels start at the bottom.
template <typename T>
void write_rows(const std::vector<T>& rows, int width, int height, int values) {
  const std::size_t row = static_cast<std::size_t>(width) * values;
  for (int y = height - 1; y >= 0; --y)
    if (std::fwrite(rows.data() + row * y, sizeof(T), row, stdout) != row) die("cannot write");
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 6 || argc > 7) die("usage: mujoco_render MODEL.xml WIDTH HEIGHT NEAR FAR [QUALITY]");
  const int width = std::atoi(argv[2]), height = std::atoi(argv[3]);
  const double near = std::atof(argv[4]), far = std::atof(argv[5]);
  const int quality = argc > 6 ? std::atoi(argv[6]) : 200;
  if (width < 1 || height < 1 || !(0 < near && near < far) || quality < 4)
    die("expected sizes above 0, 0 < NEAR < FAR and a quality of 4 or more");

  char error[500] = "";
  mjModel* m = mj_loadXML(argv[1], nullptr, error, sizeof error);
  if (m == nullptr) die(std::string(argv[1]) + ": " + error);
  m->vis.quality.offsamples = 0;
  m->vis.quality.numslices = m->vis.quality.numstacks = quality;
  m->vis.quality.numquads = quality / 2;
  m->vis.global.offwidth = width;
  m->vis.global.offheight = height;
  // MuJoCo counts them in extents of the model.
  m->vis.map.znear = static_cast<float>(near / m->stat.extent);
  m->vis.map.zfar = static_cast<float>(far / m->stat.extent);

  std::vector<unsigned char> window(static_cast<std::size_t>(width) * height * 4);
  const OSMesaContext gl = OSMesaCreateContextExt(GL_RGBA, 24, 8, 0, nullptr);
  if (gl == nullptr || !OSMesaMakeCurrent(gl, window.data(), GL_UNSIGNED_BYTE, width, height))
    die("cannot open an OSMesa context");

  mjData* d = mj_makeData(m);
  mjvScene scene;
  mjv_defaultScene(&scene);
  mjv_makeScene(m, &scene, 2000);
  mjrContext context;
  mjr_defaultContext(&context);
  mjr_makeContext(m, &context, mjFONTSCALE_100);
  mjr_setBuffer(mjFB_OFFSCREEN, &context);
  if (context.currentBuffer != mjFB_OFFSCREEN) die("OSMesa gives no offscreen buffer");
  mjvOption option;
  mjv_defaultOption(&option);
  for (mjtByte& shown : option.sitegroup) shown = 0;

  const mjrRect viewport = {0, 0, width, height};
  const std::size_t pixels = static_cast<std::size_t>(width) * height;
  std::vector<unsigned char> rgb(pixels * 3), code(pixels * 3);
  std::vector<float> depth(pixels);
  std::vector<std::int32_t> ids(pixels);
  for (std::string line; std::getline(std::cin, line);) {
    std::istringstream numbers(line);
    int camera_id = -1;
    numbers >> camera_id;
    for (int i = 0; i < m->nq; ++i) numbers >> d->qpos[i];
    if (!numbers || camera_id < 0 || camera_id >= m->ncam)
      die("expected the number of one of " + std::to_string(m->ncam) + " cameras and " +
          std::to_string(m->nq) + " numbers, got: " + line);
    mj_forward(m, d);

    mjvCamera camera;
    mjv_defaultCamera(&camera);
    camera.type = mjCAMERA_FIXED;
    camera.fixedcamid = camera_id;
    mjv_updateScene(m, d, &option, nullptr, &camera, mjCAT_STATIC | mjCAT_DYNAMIC, &scene);
    for (mjtByte& flag : scene.flags) flag = 0;
    scene.flags[mjRND_CULL_FACE] = 1;
    mjr_render(viewport, &scene, &context);
    mjr_readPixels(rgb.data(), depth.data(), viewport, &context);
    for (float& z : depth) z = static_cast<float>(near / (1 - z * (1 - near / far)));

    scene.flags[mjRND_SEGMENT] = scene.flags[mjRND_IDCOLOR] = 1;
    mjr_render(viewport, &scene, &context);
    mjr_readPixels(code.data(), nullptr, viewport, &context);
    std::vector<std::int32_t> geom_of(scene.ngeom + 1, -1);
    for (int i = 0; i < scene.ngeom; ++i) {
      const mjvGeom& geom = scene.geoms[i];
      if (geom.segid >= 0 && geom.segid < scene.ngeom && geom.objtype == mjOBJ_GEOM)
        geom_of[geom.segid + 1] = geom.objid;
    }
    for (std::size_t p = 0; p < pixels; ++p) {
      const std::size_t id = code[3 * p] | code[3 * p + 1] << 8 | code[3 * p + 2] << 16;
      if (id >= geom_of.size()) die("a colour stands for no geom");
      ids[p] = geom_of[id];
    }
    write_rows(rgb, width, height, 3);
    write_rows(depth, width, height, 1);
    write_rows(ids, width, height, 1);
    if (const int code_of_error = mjr_getError())
      die("OpenGL error " + std::to_string(code_of_error));
    std::fflush(stdout);
  }
  mjr_freeContext(&context);
  mjv_freeScene(&scene);
  mj_deleteData(d);
  mj_deleteModel(m);
  OSMesaDestroyContext(gl);
}
