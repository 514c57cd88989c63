// Collision against geometry itself: separations along sampled directions, membership of the points
// found, and the promises of the broad phase and of capacity. Contacts are compared with MuJoCo's
// in test/parity/collision.test.ts.
#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>

#include "core/block.h"
#include "core/collision_convex.h"
#include "core/model.h"

namespace sdpg::testing {
namespace {

using core::Convex;
using core::Form;
using core::Vec3d;

double uniform(std::mt19937_64& random, double low, double high) {
  return std::uniform_real_distribution<double>(low, high)(random);
}

Convex random_shape(Form form, std::mt19937_64& random) {
  Convex c{};
  c.form = form;
  double q[4], square = 0;
  for (double& x : q) {
    x = uniform(random, -1, 1);
    square += x * x;
  }
  for (double& x : q) x /= std::sqrt(square);
  const double w = q[0], x = q[1], y = q[2], z = q[3];
  const double matrix[9] = {
      1 - 2 * (y * y + z * z), 2 * (x * y - w * z),     2 * (x * z + w * y),
      2 * (x * y + w * z),     1 - 2 * (x * x + z * z), 2 * (y * z - w * x),
      2 * (x * z - w * y),     2 * (y * z + w * x),     1 - 2 * (x * x + y * y)};
  std::copy(matrix, matrix + 9, c.matrix);
  for (double& size : c.size) size = uniform(random, 0.1, 0.6);
  if (form == Form::kPoint || form == Form::kSegment) c.radius = uniform(random, 0.1, 0.4);
  c.bound = c.radius + std::hypot(c.size[0], std::hypot(c.size[1], c.size[2]));
  if (form == Form::kPrism) {
    const double dx = uniform(random, 0.2, 0.6), dy = uniform(random, 0.2, 0.6);
    const Vec3d corners[3] = {{0, 0, 0}, {dx, 0, 0}, {0, dy, 0}};
    for (int k = 0; k < 3; ++k) {
      c.corner[k] = {corners[k].x, corners[k].y, uniform(random, 0, 0.4)};
      c.corner[3 + k] = {corners[k].x, corners[k].y, -0.3};
      c.position = c.position + (c.corner[k] + c.corner[3 + k]) * (1.0 / 6);
    }
    c.bound = 1;
  }
  return c;
}

// The largest separation over many directions and those around the best of them: a lower bound of
// the signed distance, which rounding apart nothing may beat.
double sampled_distance(const Convex& a, const Convex& b) {
  constexpr int kDirections = 3000;
  double best = std::numeric_limits<double>::infinity();
  Vec3d n{};
  const auto consider = [&](const Vec3d& candidate) {
    const double value = core::overlap(a, b, candidate);
    if (!(value < best)) return false;
    best = value;
    n = candidate;
    return true;
  };
  for (int i = 0; i < kDirections; ++i) {
    const double z = 1 - 2 * (i + 0.5) / kDirections, r = std::sqrt(1 - z * z);
    const double angle = i * 2.399963229728653;
    consider({r * std::cos(angle), r * std::sin(angle), z});
  }
  for (double step = 0.05; step > 1e-8;) {
    const Vec3d s =
        core::unit(core::cross(n, std::abs(n.x) < 0.6 ? Vec3d{1, 0, 0} : Vec3d{0, 1, 0}));
    const Vec3d t = core::cross(n, s), from = n;
    bool better = false;
    for (int k = 0; k < 12; ++k)
      better |= consider(core::unit(from + s * (step * std::cos(k * M_PI / 6)) +
                                    t * (step * std::sin(k * M_PI / 6))));
    if (!better) step *= 0.6;
  }
  return -best - a.radius - b.radius;
}

// How far outside of the form a point is, as a share of its size or in metres; at most 0 inside.
double outside(const Convex& c, const Vec3d& point) {
  const Vec3d p = core::rotate_back(c.matrix, point - c.position);
  switch (c.form) {
    case Form::kPoint:
      return core::length(p) - c.radius;
    case Form::kSegment:
      return std::hypot(std::hypot(p.x, p.y), p.z - std::clamp(p.z, -c.size[2], c.size[2])) -
             c.radius;
    case Form::kEllipsoid:
      return std::hypot(p.x / c.size[0], std::hypot(p.y / c.size[1], p.z / c.size[2])) - 1;
    case Form::kCylinder:
      return std::max(std::hypot(p.x, p.y) - c.size[0], std::abs(p.z) - c.size[1]);
    case Form::kBox:
      return std::max(
          {std::abs(p.x) - c.size[0], std::abs(p.y) - c.size[1], std::abs(p.z) - c.size[2]});
    default:
      return 0;  // of a prism the sampled distance speaks
  }
}

TEST(Collision, TouchConvexFindsTheSignedDistanceAndPointsOfBothSurfaces) {
  const std::uint64_t seed = test_seed();
  SCOPED_TRACE(::testing::Message() << "seed " << seed);
  std::mt19937_64 random(seed);
  const Form first[] = {Form::kPoint,    Form::kSegment, Form::kEllipsoid,
                        Form::kCylinder, Form::kBox,     Form::kPrism};
  const Form second[] = {Form::kPoint, Form::kSegment, Form::kEllipsoid, Form::kCylinder,
                         Form::kBox};
  int touching = 0;
  for (int trial = 0; trial < 600; ++trial) {
    const Convex a = random_shape(first[trial % 6], random);
    Convex b = random_shape(second[trial / 6 % 5], random);
    for (double* x : {&b.position.x, &b.position.y, &b.position.z}) *x = uniform(random, -0.8, 0.8);
    const double reach = trial % 2 ? 0.1 : 0;
    core::Spot spot[core::kConvexTouches];
    const int count = core::touch_convex(a, b, reach, false, spot);
    const double sampled = sampled_distance(a, b);
    SCOPED_TRACE(::testing::Message() << "trial " << trial);
    if (sampled > reach) {
      EXPECT_EQ(count, 0);
      continue;
    }
    if (count == 0) {  // allowed only if a direction that was not sampled separates
      EXPECT_GT(sampled, reach - 1e-2);
      continue;
    }
    ++touching;
    const double distance = spot[0].distance;
    EXPECT_GE(distance, sampled - 1e-9) << "a sampled direction separates more";
    EXPECT_NEAR(distance, -core::overlap(a, b, spot[0].normal) - a.radius - b.radius, 1e-12);
    EXPECT_NEAR(core::length(spot[0].normal), 1, 1e-12);
    // The surfaces are half the distance to either side of the position, the first before it.
    EXPECT_LT(outside(a, spot[0].position - spot[0].normal * (0.5 * distance)), 1e-6);
    EXPECT_LT(outside(b, spot[0].position + spot[0].normal * (0.5 * distance)), 1e-6);
  }
  EXPECT_GT(touching, 200);
}

// The hopper with a cylinder, an ellipsoid and a box for limbs.
model::v1::Model mixed_message() {
  model::v1::Model message = hopper_message();
  auto* g = message.mutable_geoms();
  const int types[] = {5, 4, 6};
  for (int i = 2; i < 5; ++i) {
    g->set_type(i, types[i - 2]);
    g->set_size(3 * i + 2, 0.8 * g->size(3 * i));
  }
  return message;
}

TEST(Collision, BroadPhaseChangesNoBit) {
  const auto m = made(mixed_message());
  const std::vector<float> none_f(m->npair + m->npair_group, -1);
  const std::vector<double> none_d(m->npair + m->npair_group, -1);
  core::Model without = *m;
  without.f.pair_bound = without.f.group_bound = none_f.data();
  without.d.pair_bound = without.d.group_bound = none_d.data();
  const std::uint64_t seed = test_seed();
  SCOPED_TRACE(::testing::Message() << "seed " << seed);
  for (const core::Kernels* k : all_kernels()) {
    std::mt19937_64 random(seed);
    std::size_t contacts = 0;
    for (int trial = 0; trial < 20; ++trial) {
      Block filtered(*m, *k), all(without, *k);
      for (int lane = 0; lane < k->lanes; ++lane) {
        filtered.randomize(lane, random);
        for (int i = 0; i < 6; ++i) {
          all.set(Block::kQpos, i, lane, filtered.get(Block::kQpos, i, lane));
          all.set(Block::kQvel, i, lane, filtered.get(Block::kQvel, i, lane));
        }
        for (int i = 0; i < nu(*m); ++i)
          all.set(Block::kCtrl, i, lane, filtered.get(Block::kCtrl, i, lane));
      }
      filtered.forward();
      all.forward();
      for (int lane = 0; lane < k->lanes; ++lane) {
        EXPECT_EQ(filtered.contacts(lane), all.contacts(lane));
        EXPECT_EQ(filtered.row(Block::kQacc, 6, lane), all.row(Block::kQacc, 6, lane));
        contacts += filtered.contacts(lane).size();
      }
    }
    EXPECT_GT(contacts, 5u) << k->isa;
  }
}

// The hopper over a height field of `points` by `points` flat heights, 2 m wide.
model::v1::Model field_message(int points) {
  model::v1::Model message = hopper_message();
  auto* g = message.mutable_geoms();
  g->set_type(0, 1);
  g->clear_dataid();
  for (int i = 0; i < g->type_size(); ++i) g->add_dataid(i == 0 ? 0 : -1);
  auto* field = message.add_hfields();
  field->set_name("ground");
  field->set_nrow(points);
  field->set_ncol(points);
  for (const double size : {1.0, 1.0, 0.5, 3.0}) field->add_size(size);
  for (int i = 0; i < points * points; ++i) field->add_data(0);
  return message;
}

TEST(Collision, HeightFieldFaultsOnlyTheLaneWithTooManyTouches) {
  const auto m = made(field_message(400));
  for (const core::Kernels* k : all_kernels()) {
    Block block(*m, *k);
    const int deep = k->lanes - 1;
    for (int lane = 0; lane < k->lanes; ++lane)
      block.set(Block::kQpos, 1, lane, lane == deep ? -1 : 3);
    block.forward();
    for (int lane = 0; lane < k->lanes; ++lane)
      EXPECT_EQ(block.status(lane) & core::kOverflow, lane == deep ? core::kOverflow : 0u)
          << k->isa;
  }
}

TEST(Collision, MakeModelNamesTheHeightFieldItRefuses) {
  const auto refused = [](const std::function<void(model::v1::Model&)>& spoil) {
    model::v1::Model message = field_message(3);
    spoil(message);
    std::string error;
    EXPECT_EQ(core::make_model(message, &error), nullptr);
    return error;
  };
  const auto field = [](model::v1::Model& m) { return m.mutable_hfields(0); };
  EXPECT_NE(refused([&](auto& m) { field(m)->set_data(4, std::nanf("")); }).find("hfield 'ground'"),
            std::string::npos);
  EXPECT_NE(refused([&](auto& m) { field(m)->set_nrow(1); }).find("rows and columns"),
            std::string::npos);
  EXPECT_NE(refused([&](auto& m) { field(m)->add_data(0); }).find("expected 9 heights, got 10"),
            std::string::npos);
  EXPECT_NE(refused([&](auto& m) { field(m)->set_size(3, 0); }).find("size above 0"),
            std::string::npos);
  EXPECT_NE(refused([](auto& m) { m.mutable_geoms()->set_dataid(0, 7); }).find("height field 7"),
            std::string::npos);
}

}  // namespace
}  // namespace sdpg::testing
