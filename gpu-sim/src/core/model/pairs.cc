// Pairs of geoms that may touch: which they are, how their parameters mix, what they couple.
#include <algorithm>
#include <set>
#include <utility>

#include "core/model/builder.h"

namespace sdpg::core {

void Builder::pairs() {
  const pb::Geoms& g = in.geoms();
  const bool on = !(disabled & (kNoConstraint | kNoContact));
  // An explicit pair takes the place of the one that the filters would find.
  std::set<std::pair<int, int>> taken;
  for (int i = 0; on && i < in.pairs().name_size(); ++i) {
    const ContactParameters parameters = explicit_parameters(i);
    const int g1 = in.pairs().geom1(i), g2 = in.pairs().geom2(i);
    taken.insert({std::min(g1, g2), std::max(g1, g2)});
    add_pair(g1, g2, "pair '" + in.pairs().name(i) + "'", parameters);
  }
  for (int b1 = 0; on && b1 < nbody; ++b1)
    for (int b2 = b1 + 1; b2 < nbody; ++b2) {
      if (!bodies_may_touch(b1, b2)) continue;
      for (int g1 = in.bodies().geomadr(b1), i = 0; i < in.bodies().geomnum(b1); ++i, ++g1)
        for (int g2 = in.bodies().geomadr(b2), k = 0; k < in.bodies().geomnum(b2); ++k, ++g2) {
          if (!(g.contype(g1) & g.conaffinity(g2)) && !(g.contype(g2) & g.conaffinity(g1)))
            continue;
          if (g.type(g1) <= kHeightField && g.type(g2) <= kHeightField)
            continue;  // planes and height fields never touch each other
          if (taken.count({std::min(g1, g2), std::max(g1, g2)})) continue;
          add_pair(g1, g2, geom(g1) + " and " + geom(g2), mixed_parameters(g1, g2));
        }
    }
  std::set<int> used;
  for (const Pair& p : pair) {
    used.insert({p.geom1, p.geom2});
    out->max_contacts += p.contacts;
    out->max_condim = std::max(out->max_condim, p.condim);
    out->max_jacobian = std::max(out->max_jacobian, p.condim * p.dof_count);
  }
  out->npair = static_cast<int>(pair.size());
  out->pair = out->own(pair);
  out->pair_dof = out->own(pair_dof);
  out->pair_sign = out->own(pair_sign);
  out->chain_place = out->own(chain_place);
  out->used_geoms = static_cast<int>(used.size());
  out->used_geom = out->own(std::vector<int>(used.begin(), used.end()));
  out->own(&Constants<float>::contact, &Constants<double>::contact, contact_softness);
  out->own(&Constants<float>::friction, &Constants<double>::friction, friction);
  out->own(&Constants<float>::friction_damping, &Constants<double>::friction_damping,
           friction_damping);
}

bool Builder::bodies_may_touch(int b1, int b2) const {
  const int w1 = body_weld[b1], w2 = body_weld[b2];
  if (w1 == w2) return false;
  if (!(disabled & kNoFilterParent) && w1 != 0 && w2 != 0) {
    const int p1 = body_weld[in.bodies().parentid(w1)], p2 = body_weld[in.bodies().parentid(w2)];
    if (w1 == p2 || w2 == p1) return false;
  }
  for (const std::int32_t signature : in.exclude_signature()) {
    const int e1 = signature >> 16 & 0xffff, e2 = signature & 0xffff;
    if ((e1 == b1 && e2 == b2) || (e1 == b2 && e2 == b1)) return false;
  }
  return true;
}

void Builder::add_pair(int g1, int g2, const std::string& what,
                       const ContactParameters& parameters) {
  const pb::Geoms& g = in.geoms();
  if (g.type(g1) > g.type(g2)) std::swap(g1, g2);
  check_shape(g1);
  check_shape(g2);
  Pair p{};
  p.geom1 = g1;
  p.geom2 = g2;
  p.body1 = g.bodyid(g1);
  p.body2 = g.bodyid(g2);
  choose_narrow_phase(p, parameters.margin + parameters.gap);
  p.condim = parameters.condim;
  p.friction_geom1 = p.friction_geom2 = -1;
  for (const int from : parameters.friction_geom)
    for (int k = 0; from >= 0 && k < 3; ++k)
      if (varies(Parameter::kGeomFriction, 3 * from + k)) {
        p.friction_geom1 = parameters.friction_geom[0];
        p.friction_geom2 = parameters.friction_geom[1];
      }
  chain_of_pair(p);
  if (p.dof_count == 0) return;  // nothing moves them against each other
  // The regularisation follows from the bodies' inverse weights and, in the kernel, the friction.
  const double weight = in.bodies().invweight0(2 * p.body1) + in.bodies().invweight0(2 * p.body2);
  contact_softness.push_back(
      soften(what, parameters.solref, parameters.solimp, parameters.margin, weight));
  pair_reach.push_back(parameters.margin + parameters.gap);
  friction.insert(friction.end(), parameters.friction, parameters.friction + 5);
  const double* own = parameters.solref_friction;
  friction_damping.push_back(
      own[0] != 0 || own[1] != 0
          ? soften(what + ": solreffriction", own, parameters.solimp, 0, weight).damping
          : contact_softness.back().damping);
  pair.push_back(p);
  if (pair.size() > kMaxPairs)
    refuse("model: more than " + std::to_string(kMaxPairs) +
           " pairs of geoms may touch; exclude some or set contype and conaffinity");
}

// The degrees of freedom that move one body of the pair and not the other, shared with the pairs of
// the same bodies.
void Builder::chain_of_pair(Pair& p) {
  for (const Pair& other : pair)
    if (other.body1 == p.body1 && other.body2 == p.body2) {
      p.dof_begin = other.dof_begin;
      p.dof_count = other.dof_count;
      p.chain = other.chain;
      return;
    }
  p.dof_begin = static_cast<int>(pair_dof.size());
  p.chain = static_cast<int>(chain_place.size()) / nv;
  const std::vector<int>&c1 = chain[p.body1], &c2 = chain[p.body2];
  for (int j = 0; j < nv; ++j) {
    const bool first = std::binary_search(c1.begin(), c1.end(), j);
    const bool second = std::binary_search(c2.begin(), c2.end(), j);
    const bool moves = first != second;  // else both alike, or neither
    const std::size_t place = pair_dof.size() - static_cast<std::size_t>(p.dof_begin);
    chain_place.push_back(moves ? static_cast<std::int16_t>(place) : std::int16_t{-1});
    if (!moves) continue;
    pair_dof.push_back(j);
    pair_sign.push_back(second ? 1 : -1);
  }
  p.dof_count = static_cast<int>(pair_dof.size()) - p.dof_begin;
}

}  // namespace sdpg::core
