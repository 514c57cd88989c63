// How pairs collide: the narrow phase of each, the most contacts it makes, and the bounds of the
// broad phase.
#include <algorithm>
#include <array>
#include <cmath>

#include "core/model/builder.h"

namespace sdpg::core {

void Builder::choose_narrow_phase(Pair& p) const {
  struct Row {
    int type1, type2;
    PairKind kind;
    int contacts;
  };
  static constexpr std::array<Row, 12> kTable = {{
      {kPlane, kSphere, PairKind::kPlaneSphere, 1},
      {kPlane, kCapsule, PairKind::kPlaneCapsule, 2},
      {kPlane, kEllipsoid, PairKind::kPlaneEllipsoid, 1},
      {kPlane, kCylinder, PairKind::kPlaneCylinder, 4},
      {kPlane, kBox, PairKind::kPlaneBox, 4},
      {kSphere, kSphere, PairKind::kSphereSphere, 1},
      {kSphere, kCapsule, PairKind::kSphereCapsule, 1},
      {kSphere, kCylinder, PairKind::kSphereCylinder, 1},
      {kSphere, kBox, PairKind::kSphereBox, 1},
      {kCapsule, kCapsule, PairKind::kCapsuleCapsule, 2},
      {kCapsule, kBox, PairKind::kCapsuleBox, 2},
      {kBox, kBox, PairKind::kBoxBox, 8},
  }};
  const int type1 = in.geoms().type(p.geom1), type2 = in.geoms().type(p.geom2);
  for (const Row& row : kTable) {
    if (row.type1 != type1 || row.type2 != type2) continue;
    p.kind = row.kind;
    p.contacts = row.contacts;
    return;
  }
  refuse("unsupported: " + geom(p.geom1) + " against " + geom(p.geom2) +
         ": their shapes are not collided with each other; exclude the pair");
}

// Of the sphere around the geom's position; below 0 for none.
double Builder::bounding_radius(int g) const {
  const double *size = in.geoms().size().data() + 3 * g, a = size[0], b = size[1], c = size[2];
  switch (in.geoms().type(g)) {
    case kSphere:
      return a;
    case kCapsule:
      return a + b;
    case kEllipsoid:
      return std::max({a, b, c});
    case kCylinder:
      return std::hypot(a, b);
    case kBox:
      return std::sqrt(a * a + b * b + c * c);
    default:
      return -1;
  }
}

void Builder::bounds() {
  // A little more than needed, so that rounding never drops a pair that touches.
  constexpr double kGenerous = 1 + 1e-4;

  struct Ball {
    double low[3], high[3];
    double center[3], radius;
    bool used, endless;
  };
  std::vector<Ball> ball(nbody, Ball{{}, {}, {}, 0, false, false});
  const auto position = [&](int g) { return in.geoms().pos().data() + 3 * g; };
  for (int pass = 0; pass < 2; ++pass)
    for (int u = 0; u < out->used_geoms; ++u) {
      const int g = out->used_geom[u];
      Ball& around = ball[in.geoms().bodyid(g)];
      const double radius = bounding_radius(g);
      double square = 0;
      for (int k = 0; k < 3; ++k) {
        const double x = position(g)[k];
        if (pass == 0) {
          around.low[k] = around.used ? std::min(around.low[k], x - radius) : x - radius;
          around.high[k] = around.used ? std::max(around.high[k], x + radius) : x + radius;
        } else {
          around.center[k] = 0.5 * (around.low[k] + around.high[k]);
          square += (x - around.center[k]) * (x - around.center[k]);
        }
      }
      around.endless = around.endless || radius < 0;
      around.used = true;
      if (pass == 1) around.radius = std::max(around.radius, std::sqrt(square) + radius);
    }

  std::vector<int> bodies;
  std::vector<double> center(3 * nbody), pair_bound, group_bound;
  std::vector<PairGroup> groups;
  for (int b = 0; b < nbody; ++b) {
    if (!ball[b].used) continue;
    bodies.push_back(b);
    std::copy(ball[b].center, ball[b].center + 3, &center[3 * b]);
  }
  for (int i = 0; i < out->npair; ++i) {
    const Pair& p = out->pair[i];
    const double r1 = bounding_radius(p.geom1), r2 = bounding_radius(p.geom2);
    pair_bound.push_back(r1 < 0 || r2 < 0 ? -1 : (r1 + r2 + pair_reach[i]) * kGenerous);
    const int low = std::min(p.body1, p.body2), high = std::max(p.body1, p.body2);
    if (groups.empty() || groups.back().body1 != low || groups.back().body2 != high ||
        groups.back().pairs == 32) {
      groups.push_back({i, 0, low, high});
      group_bound.push_back(-1);
    }
    ++groups.back().pairs;
    if (ball[low].endless || ball[high].endless) continue;
    group_bound.back() = std::max(
        group_bound.back(), (ball[low].radius + ball[high].radius + pair_reach[i]) * kGenerous);
  }
  // With one pair in the group its own test is all there is to do.
  for (std::size_t i = 0; i < groups.size(); ++i)
    if (groups[i].pairs == 1) group_bound[i] = -1;

  out->bounded_bodies = static_cast<int>(bodies.size());
  out->bounded_body = out->own(bodies);
  out->npair_group = static_cast<int>(groups.size());
  out->pair_group = out->own(groups);
  out->own(&Constants<float>::body_center, &Constants<double>::body_center, center);
  out->own(&Constants<float>::pair_reach, &Constants<double>::pair_reach, pair_reach);
  out->own(&Constants<float>::pair_bound, &Constants<double>::pair_bound, pair_bound);
  out->own(&Constants<float>::group_bound, &Constants<double>::group_bound, group_bound);
}

}  // namespace sdpg::core
