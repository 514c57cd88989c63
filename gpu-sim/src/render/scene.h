// A model as the renderer keeps it: what is drawn, in what colour, under which lights, from which
// cameras. make_scene() checks a message and fills this once; nothing changes afterwards.
#pragma once

#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "render/mesh.h"
#include "render/renderer.h"

namespace sdpg::render {

// mjtGeom's numbers of the shapes that can be drawn.
enum ShapeType : std::int32_t {
  kPlane = 0,
  kHeightField = 1,
  kSphere = 2,
  kCapsule = 3,
  kEllipsoid = 4,
  kCylinder = 5,
  kBox = 6,
  kMesh = 7
};

// mjtCamLight.
enum Mode : std::int32_t {
  kFixed = 0,
  kTrack = 1,
  kTrackCom = 2,
  kTargetBody = 3,
  kTargetBodyCom = 4
};

// How a camera or a light hangs on a body.
struct Mount {
  Mode mode;
  int body, target;  // target: body looked at, or -1
  double pos[3];     // m, in the body's frame
  // Position in the world at qpos0 relative to the body, and to the centre of mass of its subtree.
  double pos0[3], poscom0[3];
};

struct Camera {
  Mount mount;
  double quat[4];  // in the body's frame
  double mat0[9];  // in the world at qpos0
  double height;   // of what is seen at a depth of 1
};

struct Light {
  Mount mount;
  bool headlight;  // along the camera's axis, whatever the mount says
  bool directional, castshadow;
  double dir[3], dir0[3];  // in the body's frame; in the world at qpos0
  float ambient[3], diffuse[3], specular[3];
  float attenuation[3];
  float cos_cutoff;  // -2 where there is no cone
  float exponent;
};

struct Geom {
  int id;  // in the model
  ShapeType type;
  int body;
  double pos[3], axes[3][3];  // in the body's frame
  float size[3];              // m; mjModel.geom_size
  // Half extents of the box around the shape in its frame; a mesh is centred on `centre`.
  float extent[3], centre[3];
  Triangles mesh;  // of a mesh or a height field, else null
  // Light reflected is albedo times what arrives, plus the highlight, at most 1; that times the
  // texture's colour. A flat geom has its colour in `albedo` and 1 in the texture.
  float albedo[3];
  bool checker;
  float first[3], second[3];  // colours of the squares
  float squares[2];           // per m of the geom's frame, x and y
  float emission, specular, exponent;
  int look;  // geoms of the same number are lit to the same colours
};

// The x, y and z axis of a frame turned by a quaternion.
inline void turn_axes(const double* q, double axes[3][3]) {
  const double w = q[0], x = q[1], y = q[2], z = q[3];
  const double turned[3][3] = {{1 - 2 * (y * y + z * z), 2 * (x * y + w * z), 2 * (x * z - w * y)},
                               {2 * (x * y - w * z), 1 - 2 * (x * x + z * z), 2 * (y * z + w * x)},
                               {2 * (x * z + w * y), 2 * (y * z - w * x), 1 - 2 * (x * x + y * y)}};
  std::memcpy(axes, turned, sizeof turned);
}

inline void set_mesh(const Mesh& mesh, Geom* geom) {
  geom->mesh = {mesh.nodes.data(), mesh.triangles.data()};
  for (int k = 0; k < 3; ++k) {
    geom->extent[k] = mesh.extent[k];
    geom->centre[k] = mesh.centre[k];
  }
}

struct Scene {
  int nbody = 0;
  // Mass and centre of mass in the body's frame, what each body hangs on, and the mass of it and
  // all that hangs on it; for the centres of mass of subtrees.
  std::vector<int> parent;
  std::vector<double> mass, ipos, subtree_mass;
  bool needs_com = false;
  std::vector<Geom> geoms;  // drawn ones, planes first
  std::vector<Camera> cameras;
  std::vector<std::string> camera_names;
  std::vector<Light> lights;
  float background[3] = {0, 0, 0};
  float global_ambient = 0;
  // Of the geoms; a picture without any needs to remember no triangles.
  std::vector<std::shared_ptr<const Mesh>> meshes;
};

// A scene as drawing reads it: here, or in the memory of a device.
struct SceneArrays {
  int nbody;
  bool needs_com;
  const int* parent;                         // [nbody]
  const double *mass, *ipos, *subtree_mass;  // [nbody], [nbody*3], [nbody]
  int geoms, planes, cameras, lights;        // planes: of the geoms, the first
  const Geom* geom;
  const Camera* camera;
  const Light* light;
  float background[3];
  float global_ambient;
};
SceneArrays arrays_of(const Scene&);

}  // namespace sdpg::render
