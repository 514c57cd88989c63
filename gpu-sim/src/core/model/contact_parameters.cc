// Parameters of the contacts between two geoms: mixed from the geoms', or those of an explicit
// pair.
#include <algorithm>

#include "core/model/builder.h"

namespace sdpg::core {

namespace {

void check_condim(const std::string& what, int condim) {
  if (condim != 1 && condim != 3 && condim != 4 && condim != 6)
    refuse(what + ": expected condim 1, 3, 4 or 6, got " + std::to_string(condim));
}

}  // namespace

// From the geom of higher priority; at equal priority the larger condim and friction, the rest in
// the proportion of solmix. Margins add up; a gap only lets contacts be reported that do not act.
ContactParameters Builder::mixed_parameters(int g1, int g2) const {
  const pb::Geoms& g = in.geoms();
  for (const int i : {g1, g2}) {
    check_condim(geom(i), g.condim(i));
    if (g.friction(3 * i) < 0 || g.friction(3 * i + 1) < 0 || g.friction(3 * i + 2) < 0 ||
        g.solmix(i) < 0 || g.margin(i) < 0 || g.gap(i) < 0)
      refuse(geom(i) + ": friction, solmix, margin and gap must be at least 0");
  }
  ContactParameters p{};
  double slide[3];
  if (g.priority(g1) != g.priority(g2)) {
    const int chosen = g.priority(g1) > g.priority(g2) ? g1 : g2;
    p.condim = g.condim(chosen);
    p.friction_geom[0] = p.friction_geom[1] = chosen;
    for (int i = 0; i < 3; ++i) slide[i] = g.friction(3 * chosen + i);
    for (int i = 0; i < 2; ++i) p.solref[i] = g.solref(2 * chosen + i);
    for (int i = 0; i < 5; ++i) p.solimp[i] = g.solimp(5 * chosen + i);
  } else {
    p.condim = std::max(g.condim(g1), g.condim(g2));
    p.friction_geom[0] = g1;
    p.friction_geom[1] = g2;
    for (int i = 0; i < 3; ++i) slide[i] = std::max(g.friction(3 * g1 + i), g.friction(3 * g2 + i));
    const double m1 = g.solmix(g1), m2 = g.solmix(g2);
    const double mix = m1 >= kTiny && m2 >= kTiny ? m1 / (m1 + m2)
                       : m1 < kTiny && m2 < kTiny ? 0.5
                       : m1 < kTiny               ? 0.0
                                                  : 1.0;
    const bool standard = g.solref(2 * g1) > 0 && g.solref(2 * g2) > 0;
    for (int i = 0; i < 2; ++i) {
      const double r1 = g.solref(2 * g1 + i), r2 = g.solref(2 * g2 + i);
      p.solref[i] = standard ? mix * r1 + (1 - mix) * r2 : std::min(r1, r2);
    }
    for (int i = 0; i < 5; ++i)
      p.solimp[i] = mix * g.solimp(5 * g1 + i) + (1 - mix) * g.solimp(5 * g2 + i);
  }
  const int source[5] = {0, 0, 1, 2, 2};
  for (int i = 0; i < 5; ++i) p.friction[i] = std::max(slide[source[i]], kLeastFriction);
  p.margin = g.margin(g1) + g.margin(g2);
  p.gap = g.gap(g1) + g.gap(g2);
  return p;
}

ContactParameters Builder::explicit_parameters(int index) const {
  const pb::Pairs& pairs = in.pairs();
  const int count = pairs.name_size();
  const std::string what = "pair '" + pairs.name(index) + "'";
  expect_size(pairs.geom1(), count, 1, "pairs.geom1");
  expect_size(pairs.geom2(), count, 1, "pairs.geom2");
  expect_size(pairs.dim(), count, 1, "pairs.dim");
  const std::vector<double> own_friction = reals(pairs.friction(), count, 5, "pairs.friction");
  const std::vector<double> solref = reals(pairs.solref(), count, 2, "pairs.solref");
  const std::vector<double> solref_friction =
      reals(pairs.solreffriction(), count, 2, "pairs.solreffriction");
  const std::vector<double> solimp = reals(pairs.solimp(), count, 5, "pairs.solimp");
  const std::vector<double> margin = reals(pairs.margin(), count, 1, "pairs.margin");
  const std::vector<double> gap = reals(pairs.gap(), count, 1, "pairs.gap");
  for (const int g : {pairs.geom1(index), pairs.geom2(index)})
    if (g < 0 || g >= ngeom)
      refuse(what + ": geom " + std::to_string(g) + " of " + std::to_string(ngeom));
  if (in.geoms().type(pairs.geom1(index)) == kPlane &&
      in.geoms().type(pairs.geom2(index)) == kPlane)
    refuse(what + ": two planes never touch");
  check_condim(what, pairs.dim(index));
  if (margin[index] < 0 || gap[index] < 0) refuse(what + ": margin and gap must be at least 0");
  ContactParameters p{};
  p.condim = pairs.dim(index);
  p.friction_geom[0] = p.friction_geom[1] = -1;
  for (int i = 0; i < 5; ++i) {
    if (own_friction[5 * index + i] < 0) refuse(what + ": friction must be at least 0");
    p.friction[i] = std::max(own_friction[5 * index + i], kLeastFriction);
    p.solimp[i] = solimp[5 * index + i];
  }
  for (int i = 0; i < 2; ++i) {
    p.solref[i] = solref[2 * index + i];
    p.solref_friction[i] = solref_friction[2 * index + i];
  }
  p.margin = margin[index];
  p.gap = gap[index];
  return p;
}

}  // namespace sdpg::core
