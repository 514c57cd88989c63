// Geoms: shapes and where they sit on their bodies.
#include "core/model/builder.h"

namespace sdpg::core {

void Builder::geoms() {
  const pb::Geoms& g = in.geoms();
  expect_size(g.type(), ngeom, 1, "geoms.type");
  expect_size(g.bodyid(), ngeom, 1, "geoms.bodyid");
  expect_size(g.contype(), ngeom, 1, "geoms.contype");
  expect_size(g.conaffinity(), ngeom, 1, "geoms.conaffinity");
  expect_size(g.condim(), ngeom, 1, "geoms.condim");
  expect_size(g.priority(), ngeom, 1, "geoms.priority");
  const std::vector<double> size = reals(g.size(), ngeom, 3, "geoms.size");
  const std::vector<double> pos = reals(g.pos(), ngeom, 3, "geoms.pos");
  std::vector<double> quat = reals(g.quat(), ngeom, 4, "geoms.quat");
  const std::vector<double> friction = reals(g.friction(), ngeom, 3, "geoms.friction");
  reals(g.solmix(), ngeom, 1, "geoms.solmix");
  reals(g.solref(), ngeom, 2, "geoms.solref");
  reals(g.solimp(), ngeom, 5, "geoms.solimp");
  reals(g.margin(), ngeom, 1, "geoms.margin");
  reals(g.gap(), ngeom, 1, "geoms.gap");
  std::vector<int> owner(g.bodyid().begin(), g.bodyid().end());
  std::vector<double> axis(ngeom * 3), turn;
  std::vector<int> turned(ngeom, -1);
  int next = 0;
  for (int b = 0; b < nbody; ++b) {
    const int count = in.bodies().geomnum(b);
    if (count < 0 || count > ngeom - next || (count > 0 && in.bodies().geomadr(b) != next))
      refuse(body(b) + ": its geoms are not numbered body by body");
    for (int i = next; i < next + count; ++i)
      if (owner[i] != b)
        refuse(geom(i) + ": bodyid " + std::to_string(owner[i]) + " contradicts the bodies");
    next += count;
  }
  if (next != ngeom)
    refuse("model: bodies own " + std::to_string(next) + " geoms of " + std::to_string(ngeom));
  for (int i = 0; i < ngeom; ++i) {
    if (g.type(i) < 0 || g.type(i) >= kGeomTypes)
      refuse(geom(i) + ": unknown type " + std::to_string(g.type(i)));
    normalize(&quat[4 * i], 4, geom(i) + ": quat");
    double columns[3][3];
    rotation_columns(&quat[4 * i], columns);
    for (int k = 0; k < 3; ++k) axis[3 * i + k] = columns[2][k];
    // Planes, spheres and capsules look the same however they are turned about their axis.
    if (g.type(i) == kPlane || g.type(i) == kSphere || g.type(i) == kCapsule) continue;
    turned[i] = static_cast<int>(turn.size() / 9);
    for (const auto& column : columns) turn.insert(turn.end(), column, column + 3);
  }
  out->own(&Constants<float>::geom_friction, &Constants<double>::geom_friction, friction);
  out->geom_body = out->own(owner);
  out->own(&Constants<float>::geom_pos, &Constants<double>::geom_pos, pos);
  out->own(&Constants<float>::geom_axis, &Constants<double>::geom_axis, axis);
  out->own(&Constants<float>::geom_size, &Constants<double>::geom_size, size);
  out->own(&Constants<float>::geom_turn, &Constants<double>::geom_turn, turn);
  out->geom_turned = out->own(turned);
  out->turned_geoms = static_cast<int>(turn.size() / 9);
}

void Builder::check_shape(int i) const {
  const pb::Geoms& g = in.geoms();
  const int type = g.type(i);
  static const char* names[kGeomTypes] = {"plane",    "hfield", "sphere", "capsule", "ellipsoid",
                                          "cylinder", "box",    "mesh",   "sdf"};
  static const int sizes[kGeomTypes] = {0, 0, 1, 2, 3, 2, 3, 0, 0};
  if (type > kBox)
    refuse("unsupported: " + geom(i) + " of type " + names[type] +
           " collides; use plane, hfield, sphere, capsule, ellipsoid, cylinder or box, or set "
           "contype and conaffinity to 0");
  for (int k = 0; k < sizes[type]; ++k)
    if (!(g.size(3 * i + k) > 0))
      refuse(geom(i) + ": expected a size above 0, got " + number(g.size(3 * i + k)) + " as the " +
             std::to_string(k + 1) +
             (k == 0   ? "st"
              : k == 1 ? "nd"
                       : "rd") +
             " of a " + names[type]);
}

}  // namespace sdpg::core
