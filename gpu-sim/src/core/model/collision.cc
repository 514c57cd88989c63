// How pairs collide: the narrow phase of each, the most contacts it makes, and the bounds of the
// broad phase.
#include <algorithm>
#include <array>
#include <cmath>

#include "core/model/builder.h"

namespace sdpg::core {

void Builder::choose_narrow_phase(Pair& p, double reach) const {
  struct Row {
    int type1, type2;
    PairKind kind;
    int contacts;
  };
  static constexpr std::array<Row, 25> kTable = {{
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
      {kSphere, kEllipsoid, PairKind::kSphereEllipsoid, 1},
      {kCapsule, kEllipsoid, PairKind::kCapsuleEllipsoid, 1},
      {kCapsule, kCylinder, PairKind::kCapsuleCylinder, 5},
      {kEllipsoid, kEllipsoid, PairKind::kEllipsoidEllipsoid, 1},
      {kEllipsoid, kCylinder, PairKind::kEllipsoidCylinder, 1},
      {kEllipsoid, kBox, PairKind::kEllipsoidBox, 1},
      {kCylinder, kCylinder, PairKind::kCylinderCylinder, 5},
      {kCylinder, kBox, PairKind::kCylinderBox, 5},
      {kHeightField, kSphere, PairKind::kHeightFieldSphere, 0},
      {kHeightField, kCapsule, PairKind::kHeightFieldCapsule, 0},
      {kHeightField, kEllipsoid, PairKind::kHeightFieldEllipsoid, 0},
      {kHeightField, kCylinder, PairKind::kHeightFieldCylinder, 0},
      {kHeightField, kBox, PairKind::kHeightFieldBox, 0},
  }};
  const int type1 = in.geoms().type(p.geom1), type2 = in.geoms().type(p.geom2);
  for (const Row& row : kTable) {
    if (row.type1 != type1 || row.type2 != type2) continue;
    p.kind = row.kind;
    p.contacts = row.contacts > 0 ? row.contacts : field_contacts(p, reach);
    return;
  }
  refuse("unsupported: " + geom(p.geom1) + " against " + geom(p.geom2) +
         ": their shapes are not collided with each other; exclude the pair");
}

// One contact per prism under the geom, but MuJoCo's limit of contacts per pair at most; a lane
// that meets more is faulted.
int Builder::field_contacts(const Pair& p, double reach) const {
  constexpr double kMost = 50;  // mjMAXCONPAIR
  const pb::HeightField& field = in.hfields(in.geoms().dataid(p.geom1));
  const double across = 2 * (bounding_radius(p.geom2) + reach);
  const auto cells = [&](int points, double half) {
    return std::min(points - 1.0, std::floor(across / (2 * half / (points - 1))) + 2);
  };
  const double prisms = 2 * cells(field.ncol(), field.size(0)) * cells(field.nrow(), field.size(1));
  out->may_overflow = out->may_overflow || prisms > kMost;
  return static_cast<int>(std::min(prisms, kMost));
}

void Builder::hfields() {
  std::vector<HeightField> fields;
  std::vector<float> data;
  for (const pb::HeightField& from : in.hfields()) {
    const std::string what = "hfield '" + from.name() + "'";
    const int nrow = from.nrow(), ncol = from.ncol();
    if (nrow < 2 || ncol < 2 || nrow > kMaxFieldPoints || ncol > kMaxFieldPoints)
      refuse(what + ": expected 2 to " + std::to_string(kMaxFieldPoints) +
             " rows and columns, got " + std::to_string(nrow) + " by " + std::to_string(ncol));
    if (from.data_size() != nrow * ncol)
      refuse(what + ": expected " + std::to_string(nrow * ncol) + " heights, got " +
             std::to_string(from.data_size()));
    if (from.size_size() != 4)
      refuse(what + ": expected 4 sizes, got " + std::to_string(from.size_size()));
    HeightField field{nrow, ncol, static_cast<int>(data.size()), {}};
    for (int k = 0; k < 4; ++k) {
      field.size[k] = from.size(k);
      if (!(from.size(k) > 0 && std::isfinite(from.size(k))))
        refuse(what + ": expected a size above 0, got " + number(from.size(k)));
    }
    for (const float height : from.data()) {
      if (!(height >= 0 && height <= 1))
        refuse(what + ": expected heights from 0 to 1, got " + number(height));
      data.push_back(height);
    }
    fields.push_back(field);
  }
  const pb::Geoms& g = in.geoms();
  std::vector<int> of_geom(ngeom, -1);
  for (int i = 0; i < ngeom; ++i) {
    if (g.type(i) != kHeightField) continue;
    const int at = i < g.dataid_size() ? g.dataid(i) : -1;
    if (at < 0 || at >= in.hfields_size())
      refuse(geom(i) + ": its height field " + std::to_string(at) + " is not one of " +
             std::to_string(in.hfields_size()) + "; compile the model again");
    of_geom[i] = at;
  }
  out->geom_hfield = out->own(of_geom);
  out->hfield = out->own(fields);
  out->hfield_data = out->own(data);
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
