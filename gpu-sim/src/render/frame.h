// One view of one environment, ready to be drawn: everything moved into the camera's frame (x to
// the right, y up, looking along -z) and bounded on the screen. A pixel's ray starts at 0 and runs
// along (u, v, -1), so that its parameter is the depth.
#pragma once

#include "render/scene.h"

namespace sdpg::render {

// In pixels; a pixel's centre is at its number.
struct ScreenBox {
  float left, right, top, bottom;
};

// Colours of the picture are packed: red + 256 green + 65536 blue, each 0 to 255.

struct Shape {
  const Geom* geom;
  float centre[3];   // m
  float axes[3][3];  // of the geom's frame
  float origin[3];   // the camera's place in the geom's frame, m
  // A sphere around it: centre and radius in m, infinite for a plane.
  float middle[3], radius;
  // The picture of it lies in the hull of two boxes: those of a capsule's ends, else the same
  // twice.
  ScreenBox ends[2];
  // Where all lights are alike on the whole of a plane: its two colours outside of any shadow.
  bool is_flat;
  std::uint32_t flat[2];
  // Of a flat plane, if shadows are asked for: none lies outside the box.
  ScreenBox shadows;
  // If a single light casts them, which that is, else -1. Then: the two colours inside of a shadow,
  // and the bound of what each shape throws, [shapes], as `ends`.
  int light;
  std::uint32_t shaded[2];
  ScreenBox (*thrown)[2];
};

// Rows of FrameLight::caster.
enum Caster : int { kX, kY, kAlongX, kAlongY, kPerSquare, kRadius, kTop, kCasterRows };

struct FrameLight {
  const Light* light;
  float pos[3];      // m
  float towards[3];  // against the light's direction, length 1
  bool casts;        // shadows are asked for
  // Of a directional light that casts them: the shapes as its rays see them, for many at once.
  // `across` are two axes at right angles to its rays. In these, a ball of kRadius somewhere on the
  // line from (kX, kY) to that and (kAlongX, kAlongY) holds the shape; kPerSquare is 1 over the
  // line's length squared, or 0 for a point; kTop is the greatest distance of the shape towards the
  // light from the camera. Each is [casters], filled up as Frame::caster.
  float across[2][3];
  float* caster[kCasterRows];
};

// Lanes of the widest pack.
inline constexpr int kCasterBlock = 16;

struct Frame {
  // Of pixel (x, y): u = (x + shift_x) * scale, v = (y + shift_y) * -scale.
  float scale, shift_x, shift_y;
  int width, height;
  float near, far;
  int planes, shapes;  // visible ones; planes come first
  Shape* shape;        // [number of geoms]
  int lights;
  FrameLight* light;  // [number of lights]
  bool shadows;       // some light casts them
  std::uint32_t background;
  float global_ambient;  // shines everywhere
  // Spheres around all shapes, as in Shape, for many at once: x, y, z and radius, each [casters].
  // Filled up with spheres that nothing can touch to a multiple of kCasterBlock.
  float* caster[4];
  int casters;
};

// Bytes of memory make_frame() needs for its arrays, a multiple of 64.
std::size_t frame_memory(const Scene&);
std::size_t frame_memory(const SceneArrays&);
// On a CPU; frame_source.h has it for a team. `memory` is aligned to 64 bytes. With `cull` false
// every geom keeps the whole screen: for tests.
void make_frame(const Scene&, const View&, const float* pose, void* memory, bool cull, Frame* out);

}  // namespace sdpg::render
