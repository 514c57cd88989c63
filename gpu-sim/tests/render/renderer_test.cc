// Pictures against a second renderer that shares nothing with the first: distances to surfaces in
// double precision, walked along every pixel's ray.
#include <algorithm>
#include <functional>

#include "batch/philox.h"
#include "render/random_scenes.h"
#include "support/fixtures.h"

namespace sdpg {
namespace {

using render::Kind;
using testing::add_box_mesh;
using testing::add_hills;
using testing::append;
using testing::draw_bytes;
using testing::draw_values;
using testing::Numbers;
using testing::random_quaternion;
using testing::random_scene;
using testing::SceneBuilder;
using testing::Solid;
using testing::view_message;

struct V {
  double x, y, z;
};
V operator+(V a, V b) { return {a.x + b.x, a.y + b.y, a.z + b.z}; }
V operator*(V a, double s) { return {a.x * s, a.y * s, a.z * s}; }
double length(V a) { return std::sqrt(a.x * a.x + a.y * a.y + a.z * a.z); }
V cross(V a, V b) { return {a.y * b.z - a.z * b.y, a.z * b.x - a.x * b.z, a.x * b.y - a.y * b.x}; }
V turn(const Numbers& q, V a) {
  const V axis{q[1], q[2], q[3]};
  const V twice = cross(axis, a) * 2;
  return a + twice * q[0] + cross(axis, twice);
}
V turn_back(const Numbers& q, V a) { return turn({q[0], -q[1], -q[2], -q[3]}, a); }

// Distance to the surface, below 0 inside; of an ellipsoid a lower bound outside.
double distance(int type, const Numbers& s, V p) {
  const double round = std::hypot(p.x, p.y);
  const auto outside = [](double x, double y, double z) {
    return length({std::max(x, 0.0), std::max(y, 0.0), std::max(z, 0.0)}) +
           std::min(std::max({x, y, z}), 0.0);
  };
  switch (type) {
    case 0:
      return p.z;
    case 2:
      return length(p) - s[0];
    case 3:
      return length({p.x, p.y, p.z - std::clamp(p.z, -s[1], s[1])}) - s[0];
    case 4:
      return (length({p.x / s[0], p.y / s[1], p.z / s[2]}) - 1) * std::min({s[0], s[1], s[2]});
    case 5:
      return outside(round - s[0], std::abs(p.z) - s[1], -1e9);
    case 6:
      return outside(std::abs(p.x) - s[0], std::abs(p.y) - s[1], std::abs(p.z) - s[2]);
  }
  ADD_FAILURE() << "no shape " << type;
  return 0;
}

double distance(const Solid& solid, V p) {
  return distance(solid.type, solid.size,
                  turn_back(solid.quat, p + V{solid.pos[0], solid.pos[1], solid.pos[2]} * -1));
}

struct Seen {
  int id = -1;
  double depth;
  double grazed;  // nearest any ray came to a surface it missed, in m per m of depth
};
// Walks a ray whose direction has length 1 along the camera's axis.
Seen walk(const std::vector<Solid>& solids, V from, V ray, double near, double far) {
  Seen seen{-1, far, 1e9};
  const double speed = length(ray);
  for (const Solid& solid : solids) {
    double t = near, least = 1e9;
    if (distance(solid, from + ray * t) <= 0) continue;
    for (int step = 0; step < 20000 && t < seen.depth; ++step) {
      const double d = distance(solid, from + ray * t);
      if (d < 1e-9) break;
      least = std::min(least, d / t);
      t += d / speed;
    }
    if (distance(solid, from + ray * t) < 1e-8 && t < seen.depth) {
      seen.id = solid.id;
      seen.depth = t;
    } else {
      seen.grazed = std::min(seen.grazed, least);
    }
  }
  return seen;
}

// Compares a picture from (0, 0, 0) along x, z up. Where the two disagree on the geom, the ray must
// pass a silhouette within the rounding of single precision.
void expect_as_walked(const SceneBuilder& builder, const std::vector<Solid>& solids, int width,
                      int height) {
  const auto scene = builder.scene();
  const auto depth =
      draw_values<float>(*scene, view_message(Kind::kDepth, width, height), builder.pose);
  const auto ids = draw_values<std::int32_t>(
      *scene, view_message(Kind::kSegmentation, width, height), builder.pose);
  const double scale = 2 * std::tan(M_PI / 6) / height;
  int differing = 0, hits = 0;
  for (int y = 0; y < height; ++y) {
    for (int x = 0; x < width; ++x) {
      const double u = (x + 0.5 - 0.5 * width) * scale, v = -(y + 0.5 - 0.5 * height) * scale;
      const Seen seen = walk(solids, {0, 0, 0}, {1, -u, v}, 0.01, 100);
      const int i = y * width + x;
      hits += seen.id >= 0;
      if (ids[i] != seen.id) {
        ++differing;
        EXPECT_LT(seen.grazed, 1e-3)
            << "pixel " << x << ", " << y << ": geom " << ids[i] << ", walked to " << seen.id;
      } else {
        ASSERT_NEAR(depth[i], seen.depth, 2e-4 * seen.depth) << "pixel " << x << ", " << y;
      }
    }
  }
  EXPECT_GT(hits, width * height / 40);
  EXPECT_LE(differing, 1 + width * height / 500);
}

TEST(Renderer, DrawsWhatAWalkAlongTheRaysMeets) {
  const std::uint64_t seed = testing::test_seed();
  SCOPED_TRACE("seed " + std::to_string(seed));
  for (int i = 0; i < 4; ++i) {
    std::vector<Solid> solids;
    const SceneBuilder builder = random_scene(seed + i, &solids);
    expect_as_walked(builder, solids, 60, 44);
  }
}

TEST(Renderer, DrawsEachShapeAloneAndStraight) {
  const struct {
    int type;
    Numbers size;
    double depth;  // of its middle
  } cases[] = {{2, {0.5}, 2.5},
               {3, {0.2, 0.5}, 2.8},
               {4, {0.3, 0.4, 0.5}, 2.7},
               {5, {0.4, 0.3}, 2.6},
               {6, {0.3, 0.2, 0.4}, 2.7}};
  for (const auto& each : cases) {
    SCOPED_TRACE("shape " + std::to_string(each.type));
    SceneBuilder builder;
    builder.camera({0, 0, 0});
    builder.geom(each.type, each.size, {3, 0, 0});
    const auto depth =
        draw_values<float>(*builder.scene(), view_message(Kind::kDepth, 33, 33), builder.pose);
    EXPECT_NEAR(depth[16 * 33 + 16], each.depth, 1e-5);
    EXPECT_EQ(depth[0], 100);
    expect_as_walked(builder, {{0, each.type, each.size, {3, 0, 0}, {1, 0, 0, 0}}}, 33, 33);
  }
}

TEST(Renderer, LooksAlongTheAxesOfRoundShapes) {
  // Rays of the middle column and row run along the axis, where the quadratic has no leading term.
  const Numbers along_x{std::sqrt(0.5), 0, std::sqrt(0.5), 0};
  for (const int type : {3, 5}) {
    SceneBuilder builder;
    builder.camera({0, 0, 0});
    builder.geom(type, {0.3, 0.5}, {3, 0, 0}, along_x);
    const auto depth =
        draw_values<float>(*builder.scene(), view_message(Kind::kDepth, 33, 33), builder.pose);
    EXPECT_NEAR(depth[16 * 33 + 16], type == 3 ? 2.2 : 2.5, 1e-5);
    expect_as_walked(builder, {{0, type, {0.3, 0.5}, {3, 0, 0}, along_x}}, 33, 33);
  }
}

TEST(Renderer, DrawsAFinitePlaneFromItsFrontOnly) {
  for (const bool front : {true, false}) {
    SceneBuilder builder;
    builder.camera({0, 0, 0});
    // Its z axis along -x, towards the camera, or along x.
    const double half = std::sqrt(0.5);
    builder.geom(0, {0.5, 0.25, 1}, {2, 0, 0}, {half, 0, front ? -half : half, 0});
    const auto ids = draw_values<std::int32_t>(
        *builder.scene(), view_message(Kind::kSegmentation, 100, 100), builder.pose);
    // 1 m at 2 m depth is 100 / (4 tan 30 deg) = 43.3 pixels: its x half extent lies along z.
    const int count = static_cast<int>(std::count(ids.begin(), ids.end(), 0));
    EXPECT_EQ(count, front ? 44 * 22 : 0);
  }
}

TEST(Renderer, DrawsAMeshOfABoxAsTheBox) {
  const std::uint64_t seed = testing::test_seed();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937_64 random(seed);
  for (int i = 0; i < 5; ++i) {
    const Numbers quat = random_quaternion(random);
    SceneBuilder builder;
    builder.camera({0, 0, 0});
    add_box_mesh(&builder, 0.3, 0.5, 0.7);
    const int mesh = builder.geom(7, {0.3, 0.5, 0.7}, {3, 0.1, 0.2}, quat);
    builder.model.mutable_geoms()->set_dataid(mesh, 0);
    expect_as_walked(builder, {{0, 6, {0.3, 0.5, 0.7}, {3, 0.1, 0.2}, quat}}, 40, 40);
    // Lit alike too: the normals agree.
    builder.light(true, {0, 0, 5}, {1, 0.5, -0.4});
    const auto message = view_message(Kind::kRgb, 40, 40);
    const auto as_mesh = draw_bytes(*builder.scene(), message, builder.pose);
    builder.model.mutable_geoms()->set_type(mesh, 6);
    const auto as_box = draw_bytes(*builder.scene(), message, builder.pose);
    int differing = 0;
    for (std::size_t b = 0; b < as_box.size(); ++b)
      differing += std::abs(as_box[b] - as_mesh[b]) > 1;
    EXPECT_LE(differing, 12);
  }
}

TEST(Renderer, DrawsTheHeightsOfAHeightField) {
  std::mt19937_64 random(5);
  SceneBuilder builder;
  builder.camera({0, 0, 2}, {1, 0, 0, 0}, 90);
  add_hills(&builder, 5, 9, random);
  builder.model.mutable_geoms()->set_dataid(builder.geom(1, {1, 1, 0.5}, {0, 0, 0}), 0);
  const auto& data = builder.model.hfields(0).data();
  for (int r = 1; r < 4; ++r) {
    for (int c = 1; c < 8; ++c) {
      // Straight above the point of row r, column c; the middle pixel sees it.
      auto* camera = builder.model.mutable_cameras(0);
      camera->set_pos(0, 2.0 * c / 8 - 1);
      camera->set_pos(1, 2.0 * r / 4 - 1);
      const auto depth =
          draw_values<float>(*builder.scene(), view_message(Kind::kDepth, 3, 3), builder.pose);
      EXPECT_NEAR(depth[4], 2 - 0.5 * data[9 * r + c], 1e-5) << "row " << r << ", column " << c;
    }
  }
  // The front wall from the side, from the base up to the surface; nothing below.
  auto* camera = builder.model.mutable_cameras(0);
  for (int i = 0; i < 3; ++i) camera->set_pos(i, i == 1 ? -3 : -0.05);
  for (int i = 0; i < 4; ++i) camera->set_quat(i, i < 2 ? std::sqrt(0.5) : 0);
  const auto depth =
      draw_values<float>(*builder.scene(), view_message(Kind::kDepth, 41, 41), builder.pose);
  EXPECT_NEAR(depth[20 * 41 + 20], 2, 1e-5);
  EXPECT_EQ(depth[40 * 41 + 20], 100);
}

TEST(Renderer, DrawsTheSameBitsWithEveryTableAndWithoutCulling) {
  const std::uint64_t seed = testing::test_seed();
  SCOPED_TRACE("seed " + std::to_string(seed));
  const int sizes[][2] = {{84, 84}, {58, 87}, {1, 1}, {7, 5}, {3, 130}};
  for (int i = 0; i < 6; ++i) {
    const SceneBuilder builder = testing::crowded_scene(seed, i);
    const auto scene = builder.scene();
    for (const auto& [width, height] : sizes) {
      for (const Kind kind : {Kind::kRgb, Kind::kDepth, Kind::kSegmentation}) {
        auto message = view_message(kind, width, height);
        message.set_shadows(i % 3 != 0);
        const auto expected = draw_bytes(*scene, message, builder.pose, {}, "emulated");
        for (const std::string& isa : testing::all_tables())
          EXPECT_EQ(draw_bytes(*scene, message, builder.pose, {}, isa), expected)
              << isa << ", " << width << " x " << height << ", kind " << static_cast<int>(kind);
      }
    }
  }
}

// Tables that draw a line of plain ground at once know several cases of what is alike along it; the
// emulated one draws pixel by pixel.
TEST(Renderer, DrawsPlainGroundAlikeFromEveryDirection) {
  const double half = std::sqrt(0.5), a = 0.7;
  const Numbers along_x{0.5, 0.5, -0.5, -0.5}, along_y{half, half, 0, 0},
      tilted{0.6, 0.56, -0.4, -0.4080441};
  const Numbers straight{1, 0, 0, 0}, turned{std::cos(a), 0, 0, std::sin(a)};
  for (const Numbers& eye : {along_x, along_y, tilted})
    for (const Numbers& yaw : {straight, turned})
      for (const double extent : {0.0, 3.0}) {
        SceneBuilder builder;
        builder.camera({0.3, -0.4, 1}, eye);
        builder.light(true, {0, 0, 3}, {0.2, 0.1, -1});
        builder.geom(0, {extent, extent, 1}, {0, 0, -0.2}, yaw, {0.5, 0.5, 0.5, 1}, 0);
        auto* material = builder.model.add_materials();
        append({0.9, 0.4, 0.6, 1}, material->mutable_rgba());
        append({0.2, 0.8, 0.3, 1}, material->mutable_rgba2());
        append({3, 2}, material->mutable_texrepeat());
        material->set_texuniform(true);
        const auto scene = builder.scene();
        for (const auto& [width, height] : {std::pair{84, 84}, {37, 22}, {5, 9}}) {
          const auto message = view_message(Kind::kRgb, width, height);
          const auto expected = draw_bytes(*scene, message, builder.pose, {}, "emulated");
          const auto [low, high] = std::minmax_element(expected.begin(), expected.end());
          EXPECT_LT(*low + 20, *high) << "nothing to see";
          for (const std::string& isa : testing::all_tables())
            EXPECT_EQ(draw_bytes(*scene, message, builder.pose, {}, isa), expected)
                << isa << ", " << width << " x " << height << ", extent " << extent;
        }
      }
}

TEST(Renderer, ClipsAtNearAndFar) {
  SceneBuilder builder;
  builder.camera({0, 0, 0});
  builder.geom(2, {0.5}, {1, 0, 0});
  builder.geom(2, {0.5}, {4, 0, 0});
  builder.geom(2, {5}, {20, 0, 0});
  const auto scene = builder.scene();
  const auto middle = [&](double near, double far) {
    auto message = view_message(Kind::kDepth, 5, 5);
    message.set_near(near);
    message.set_far(far);
    return draw_values<float>(*scene, message, builder.pose)[12];
  };
  EXPECT_NEAR(middle(0, 0), 0.5, 1e-6);
  // Cut open, a shape shows nothing: its inside is not drawn.
  EXPECT_NEAR(middle(0.6, 0), 3.5, 1e-6);
  EXPECT_NEAR(middle(3.6, 0), 15, 1e-5);
  EXPECT_EQ(middle(3.6, 14), 14);
}

// -- cameras
// -----------------------------------------------------------------------------------------

// Where the only sphere stands in the picture: mean column and row of its pixels.
struct Spot {
  double x = 0, y = 0;
  int count = 0;
};
Spot find(const SceneBuilder& builder, int size, int id = 0) {
  const auto ids = draw_values<std::int32_t>(
      *builder.scene(), view_message(Kind::kSegmentation, size, size), builder.pose);
  Spot spot;
  for (int i = 0; i < size * size; ++i) {
    if (ids[i] != id) continue;
    spot.x += i % size;
    spot.y += i / size;
    ++spot.count;
  }
  spot.x /= std::max(spot.count, 1);
  spot.y /= std::max(spot.count, 1);
  return spot;
}

TEST(Renderer, KeepsRowsDownAndColumnsToTheRight) {
  SceneBuilder builder;
  builder.camera({0, 0, 0});
  // Along x with z up, right is -y. tan = 0.2 is 0.2 / (2 tan 30 deg) * 101 = 17.49 pixels.
  builder.geom(2, {0.1}, {5, -1, 1});
  const Spot spot = find(builder, 101);
  EXPECT_NEAR(spot.x, 50 + 17.49, 0.6);
  EXPECT_NEAR(spot.y, 50 - 17.49, 0.6);
}

TEST(Renderer, FollowsBodiesInEveryCameraMode) {
  const double half = std::sqrt(0.5);
  const Numbers quarter{half, 0, 0, half};  // about z
  // Body 1 has moved to (10, 0, 1) and turned a quarter about z; body 2 is a light one beside it.
  const auto make = [&](int mode) {
    SceneBuilder builder(3);
    auto* bodies = builder.model.mutable_bodies();
    bodies->set_parentid(2, 1);  // body 2 hangs on body 1
    bodies->set_pos(7, 2);       // at y = 2 of it
    auto* camera = builder.camera({0.5, 0, 0});
    camera->set_mode(mode);
    camera->set_bodyid(1);
    camera->set_targetbodyid(3);
    camera->set_pos0(0, 0.5);
    builder.place(1, {10, 0, 1}, quarter);
    builder.place(2, {8, 0, 1}, quarter);
    builder.place(3, {10, -20, 6});
    return builder;
  };
  const auto depth_at = [](const SceneBuilder& builder, Numbers sphere) {
    SceneBuilder with = builder;
    with.geom(2, {0.25}, sphere);
    const Spot spot = find(with, 101);
    EXPECT_NEAR(spot.x, 50, 0.5);
    EXPECT_NEAR(spot.y, 50, 0.5);
    return draw_values<float>(*with.scene(), view_message(Kind::kDepth, 101, 101),
                              with.pose)[50 * 101 + 50];
  };
  // Fixed to the body: from (10, 0.5, 1) along y.
  EXPECT_NEAR(depth_at(make(0), {10, 5.5, 1}), 4.75, 1e-4);
  // Track: (10, 0, 1) + pos0, along x as at qpos0.
  EXPECT_NEAR(depth_at(make(1), {15.5, 0, 1}), 4.75, 1e-4);
  // Trackcom: the subtree's centre was (0, 1, 0) and is (9, 0, 1).
  EXPECT_NEAR(depth_at(make(2), {14.5, -1, 1}), 4.75, 1e-4);
  // Targetbody: from (10, 0.5, 1) at (10, -20, 6), z up.
  const double reach = std::hypot(20.5, 5.0);
  EXPECT_NEAR(depth_at(make(3), {10, -20, 6}), reach - 0.25, 1e-4);
  // Targetbodycom: the target's centre of mass is elsewhere in it.
  SceneBuilder com = make(4);
  com.model.mutable_bodies()->set_ipos(9, 1.5);
  EXPECT_NEAR(depth_at(com, {11.5, -20, 6}), std::hypot(1.5, 20.5, 5.0) - 0.25, 1e-4);
}

// -- colours
// -----------------------------------------------------------------------------------------

struct Rgb {
  int red, green, blue;
  bool operator==(const Rgb&) const = default;
};
std::ostream& operator<<(std::ostream& out, const Rgb& c) {
  return out << "(" << c.red << ", " << c.green << ", " << c.blue << ")";
}
Rgb pixel(const SceneBuilder& builder, int x, int y, int size, bool shadows = false) {
  auto message = view_message(Kind::kRgb, size, size);
  message.set_shadows(shadows);
  const auto bytes = draw_bytes(*builder.scene(), message, builder.pose);
  const int i = y * size + x;
  return {bytes[i], bytes[size * size + i], bytes[2 * size * size + i]};
}

// Looks straight down from 2 m with x to the right and y up.
SceneBuilder above() {
  SceneBuilder builder;
  builder.camera({0, 0, 2}, {1, 0, 0, 0}, 90);
  return builder;
}

TEST(Renderer, LightsAsOpenGlDoes) {
  SceneBuilder builder = above();
  builder.geom(0, {0, 0, 1}, {0, 0, 0}, {1, 0, 0, 0}, {1, 0.5, 0.2, 1});
  // Without a light: an ambient 0.3 of MuJoCo's.
  EXPECT_EQ(pixel(builder, 2, 2, 5), (Rgb{77, 38, 15}));
  // Directional, 60 degrees from the normal: half of 0.8.
  auto* sun = builder.light(true, {0, 0, 3}, {std::sqrt(3.0), 0, -1});
  for (int c = 0; c < 3; ++c) sun->set_diffuse(c, 0.8);
  EXPECT_EQ(pixel(builder, 2, 2, 5), (Rgb{102, 51, 20}));
  EXPECT_EQ(pixel(builder, 0, 4, 5), (Rgb{102, 51, 20}));
  sun->set_ambient(0, 0.1);
  EXPECT_EQ(pixel(builder, 2, 2, 5), (Rgb{128, 51, 20}));
  // Positional, straight above at 1 m, 1 / (1 + 1 * 1 + 2 * 1).
  sun->set_directional(false);
  sun->set_ambient(0, 0);
  sun->set_pos(2, 1);
  sun->set_dir(0, 0);
  sun->set_attenuation(1, 1);
  sun->set_attenuation(2, 2);
  EXPECT_EQ(pixel(builder, 2, 2, 5), (Rgb{51, 26, 10}));
  // At (0.8, 0): 1.28 m away, cosine 0.7809, 0.8 * 0.7809 / (1 + 1.28 + 3.28) = 0.11235.
  EXPECT_EQ(pixel(builder, 3, 2, 5), (Rgb{29, 14, 6}));
  // A cone of 30 degrees holds the middle only; its softness is 1 on the axis.
  sun->set_cutoff(30);
  sun->set_exponent(3);
  EXPECT_EQ(pixel(builder, 2, 2, 5), (Rgb{51, 26, 10}));
  EXPECT_EQ(pixel(builder, 3, 2, 5), (Rgb{0, 0, 0}));
  // 45 degrees hold (0.8, 0), where the light is 0.7809^3 as strong.
  sun->set_cutoff(45);
  EXPECT_EQ(pixel(builder, 3, 2, 5), (Rgb{14, 7, 3}));
}

TEST(Renderer, AddsHighlightsAndTheHeadlight) {
  SceneBuilder builder = above();
  builder.geom(0, {0, 0, 1}, {0, 0, 0}, {1, 0, 0, 0}, {0.5, 0.5, 0.5, 1}, 0);
  auto* material = builder.model.add_materials();
  append({0.4, 0, 0, 1}, material->mutable_rgba());
  material->set_emission(0.5);
  material->set_specular(0.5);
  material->set_shininess(4 / 128.0);
  auto* visual = builder.model.mutable_visual();
  append({0.1, 0.1, 0.1}, visual->mutable_headlight_ambient());
  append({0.4, 0.4, 0.4}, visual->mutable_headlight_diffuse());
  append({0.6, 0, 0.6}, visual->mutable_headlight_specular());
  // In the middle all directions agree: 0.4 (0.5 + 0.1 + 0.4) + 0.5 * 0.6.
  EXPECT_EQ(pixel(builder, 2, 2, 5), (Rgb{179, 0, 77}));
  // At tan = 0.8 the eye is 38.66 degrees off and the half vector 19.33: cos^4 = 0.7929.
  EXPECT_EQ(pixel(builder, 4, 2, 5), (Rgb{163, 0, 61}));
}

TEST(Renderer, LaysCheckersAsTheTextureGeneratorDoes) {
  SceneBuilder builder = above();
  builder.geom(0, {0, 0, 1}, {0, 0, 0}, {1, 0, 0, 0}, {0.5, 0.5, 0.5, 1}, 0);
  auto* visual = builder.model.mutable_visual();
  append({1, 1, 1}, visual->mutable_headlight_ambient());
  append({0, 0, 0}, visual->mutable_headlight_diffuse());
  append({0, 0, 0}, visual->mutable_headlight_specular());
  auto* material = builder.model.add_materials();
  append({0.2, 0.4, 0.6, 1}, material->mutable_rgba());
  append({1, 0, 1, 1}, material->mutable_rgba2());
  append({1, 2}, material->mutable_texrepeat());
  material->set_texuniform(true);
  const Rgb first{51, 102, 153}, second{255, 0, 255};
  // 40 pixels across 4 m: pixel 20 is x = 0.05, and row 19 is y = 0.05.
  EXPECT_EQ(pixel(builder, 20, 19, 40), second);
  EXPECT_EQ(pixel(builder, 19, 19, 40), first);   // x = -0.05
  EXPECT_EQ(pixel(builder, 20, 20, 40), first);   // y = -0.05
  EXPECT_EQ(pixel(builder, 29, 19, 40), second);  // x = 0.95
  EXPECT_EQ(pixel(builder, 30, 19, 40), first);   // x = 1.05
  EXPECT_EQ(pixel(builder, 20, 15, 40), second);  // y = 0.45
  EXPECT_EQ(pixel(builder, 20, 14, 40), first);   // y = 0.55
  // Per extent of a plane of 2 m x 4 m: squares of 2 m x 2 m, but two in y.
  builder.model.mutable_geoms()->set_size(0, 1);
  builder.model.mutable_geoms()->set_size(1, 2);
  material->set_texuniform(false);
  EXPECT_EQ(pixel(builder, 20, 19, 40), second);
  EXPECT_EQ(pixel(builder, 20, 1, 40), second);  // y = 1.85
  EXPECT_EQ(pixel(builder, 19, 1, 40), first);
}

TEST(Renderer, CastsShadowsWhereTheyAreAskedFor) {
  for (const int type : {2, 3, 4, 5, 6, 7}) {
    for (const bool directional : {true, false}) {
      SCOPED_TRACE("shape " + std::to_string(type) + (directional ? ", sun" : ", lamp"));
      SceneBuilder builder = above();
      builder.geom(0, {0, 0, 1}, {0, 0, 0});
      add_box_mesh(&builder, 0.25, 0.25, 0.25);
      const int geom = builder.geom(type, {0.25, 0.25, 0.25}, {1, 0, 0.5});
      if (type == 7) builder.model.mutable_geoms()->set_dataid(geom, 0);
      // Through the shape's middle to (0.5, 0) of the ground.
      auto* light = builder.light(directional, {2, 0, 1.5}, {-1, 0, -1});
      const auto at = [&](double x, double y, bool shadows) {
        const int column = static_cast<int>(50 * (x + 2)), row = static_cast<int>(50 * (2 - y));
        return pixel(builder, column, row, 200, shadows).red;
      };
      const int lit = at(0.5, 0, false);
      EXPECT_GT(lit, 40);
      EXPECT_EQ(at(0.5, 0, true), lit) << "the light casts none";
      light->set_castshadow(true);
      EXPECT_EQ(at(0.5, 0, true), 0);
      EXPECT_EQ(at(0.5, 0, false), lit) << "the view asks for none";
      // A sun's shadow is as wide as the shape, a lamp's up to twice.
      EXPECT_EQ(at(0.5, 0.2, true), 0);
      const double outside = directional ? 0.3 : 0.55;
      EXPECT_EQ(at(0.5, outside, true), at(0.5, outside, false));
      EXPECT_EQ(at(-1.6, 0, true), at(-1.6, 0, false));
      // The top of the shape is lit: nothing darkens its own front.
      EXPECT_EQ(at(1.8, 0.02, true), at(1.8, 0.02, false));
      EXPECT_GT(at(1.8, 0.02, true), 10);
    }
  }
}

TEST(Renderer, ShowsTheBackgroundWhereNothingIsHit) {
  SceneBuilder builder = above();
  append({0.2, 0.4, 1}, builder.model.mutable_visual()->mutable_background());
  EXPECT_EQ(pixel(builder, 0, 0, 3), (Rgb{51, 102, 255}));
}

TEST(Renderer, LeavesOutWhatMujocoHides) {
  SceneBuilder builder;
  builder.camera({0, 0, 0});
  builder.geom(2, {0.5}, {3, 0, 0});
  builder.geom(2, {0.5}, {2, 0, 0}, {1, 0, 0, 0}, {1, 1, 1, 0});
  const int hidden = builder.geom(2, {0.5}, {1, 0, 0});
  builder.model.mutable_geoms()->set_group(hidden, 3);
  const auto ids = draw_values<std::int32_t>(*builder.scene(),
                                             view_message(Kind::kSegmentation, 3, 3), builder.pose);
  EXPECT_EQ(ids[4], 0);
}

// -- noise
// -------------------------------------------------------------------------------------------

TEST(Renderer, KeysDepthNoiseByItsKeyAndPixel) {
  SceneBuilder builder = above();
  builder.geom(0, {0, 0, 1}, {0, 0, 0});
  const auto scene = builder.scene();
  auto message = view_message(Kind::kDepth, 31, 17);
  message.set_depth_noise(0.25);
  const auto draw = [&](render::NoiseKey key, const std::string& isa = "") {
    return draw_values<float>(*scene, message, builder.pose, key, isa);
  };
  const render::NoiseKey key{123456789012345, 7, 3};
  const auto depth = draw(key);
  for (std::size_t i = 0; i < depth.size(); ++i) {
    const std::uint32_t counter[4] = {static_cast<std::uint32_t>(i / 4) | 4u << 28, 7, 3, 0};
    std::uint32_t words[4];
    batch::philox(counter, key.seed, words);
    const float noise = (2 * batch::uniform(words[i % 4]) - 1) * 0.25f;
    EXPECT_NEAR(depth[i], 2 + noise, 1e-5) << i;
  }
  EXPECT_EQ(draw(key, "emulated"), depth);
  EXPECT_NE(draw({key.seed + 1, 7, 3}), depth);
  EXPECT_NE(draw({key.seed, 8, 3}), depth);
  EXPECT_NE(draw({key.seed, 7, 4}), depth);
  // Then the clip.
  message.set_near(1.9);
  message.set_far(2.1);
  const auto clipped = draw(key);
  EXPECT_EQ(*std::min_element(clipped.begin(), clipped.end()), 1.9f);
  EXPECT_EQ(*std::max_element(clipped.begin(), clipped.end()), 2.1f);
}

}  // namespace
}  // namespace sdpg
