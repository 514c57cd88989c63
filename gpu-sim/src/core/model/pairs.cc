// Pairs of geoms that may touch: which they are, how their parameters mix, what they couple.
#include <algorithm>
#include <set>
#include <utility>

#include "core/model/builder.h"

namespace sdpg::core {

void Builder::pairs() {
  const pb::Geoms& g = in.geoms();
  std::vector<Pair> pair;
  std::vector<Softness<double>> soft;
  std::vector<double> friction;
  std::vector<int> dofs;
  std::vector<std::int8_t> signs;
  const bool on = !(disabled & (kNoConstraint | kNoContact));
  for (int b1 = 0; on && b1 < nbody; ++b1)
    for (int b2 = b1 + 1; b2 < nbody; ++b2) {
      if (!bodies_may_touch(b1, b2)) continue;
      for (int g1 = in.bodies().geomadr(b1), i = 0; i < in.bodies().geomnum(b1); ++i, ++g1)
        for (int g2 = in.bodies().geomadr(b2), k = 0; k < in.bodies().geomnum(b2); ++k, ++g2)
          if ((g.contype(g1) & g.conaffinity(g2)) || (g.contype(g2) & g.conaffinity(g1)))
            add_pair(g1, g2, pair, soft, friction, dofs, signs);
    }
  std::set<int> used;
  for (const Pair& p : pair) {
    used.insert({p.geom1, p.geom2});
    out->max_contacts += p.contacts;
    out->max_chain = std::max(out->max_chain, p.dof_count);
  }
  out->npair = static_cast<int>(pair.size());
  out->pair = out->own(pair);
  out->pair_dof = out->own(dofs);
  out->pair_sign = out->own(signs);
  out->used_geoms = static_cast<int>(used.size());
  out->used_geom = out->own(std::vector<int>(used.begin(), used.end()));
  out->own(&Constants<float>::contact, &Constants<double>::contact, soft);
  out->own(&Constants<float>::friction, &Constants<double>::friction, friction);
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

void Builder::add_pair(int g1, int g2, std::vector<Pair>& pair, std::vector<Softness<double>>& soft,
                       std::vector<double>& friction, std::vector<int>& dofs,
                       std::vector<std::int8_t>& signs) {
  const pb::Geoms& g = in.geoms();
  if (g.type(g1) > g.type(g2)) std::swap(g1, g2);
  if (g.type(g1) == kPlane && g.type(g2) == kPlane) return;  // planes never touch each other
  check_shape(g1);
  check_shape(g2);
  Pair p{};
  p.geom1 = g1;
  p.geom2 = g2;
  p.body1 = g.bodyid(g1);
  p.body2 = g.bodyid(g2);
  // Parameters of the pair: from the geom of higher priority, else mixed.
  double ref[2], imp[5], mu;
  if (g.priority(g1) != g.priority(g2)) {
    const int chosen = g.priority(g1) > g.priority(g2) ? g1 : g2;
    p.condim = g.condim(chosen);
    mu = g.friction(3 * chosen);
    for (int i = 0; i < 2; ++i) ref[i] = g.solref(2 * chosen + i);
    for (int i = 0; i < 5; ++i) imp[i] = g.solimp(5 * chosen + i);
  } else {
    p.condim = std::max(g.condim(g1), g.condim(g2));
    mu = std::max(g.friction(3 * g1), g.friction(3 * g2));
    const double m1 = g.solmix(g1), m2 = g.solmix(g2);
    const double mix = m1 >= kTiny && m2 >= kTiny ? m1 / (m1 + m2)
                       : m1 < kTiny && m2 < kTiny ? 0.5
                       : m1 < kTiny               ? 0.0
                                                  : 1.0;
    const bool standard = g.solref(2 * g1) > 0 && g.solref(2 * g2) > 0;
    for (int i = 0; i < 2; ++i) {
      const double r1 = g.solref(2 * g1 + i), r2 = g.solref(2 * g2 + i);
      ref[i] = standard ? mix * r1 + (1 - mix) * r2 : std::min(r1, r2);
    }
    for (int i = 0; i < 5; ++i)
      imp[i] = mix * g.solimp(5 * g1 + i) + (1 - mix) * g.solimp(5 * g2 + i);
  }
  mu = std::max(mu, kLeastFriction);

  // The regularisation of a pyramid's edges follows from that of the first friction direction.
  const double weight = in.bodies().invweight0(2 * p.body1) + in.bodies().invweight0(2 * p.body2);
  const double edge = p.condim == 1 ? weight
                                    : 2 * mu * mu / std::max(kTiny, in.option().impratio()) *
                                          (weight + mu * mu * weight);
  // The contact acts below the sum of the margins; a gap only lets inactive contacts be reported.
  const double margin = g.margin(g1) + g.margin(g2);
  p.dof_begin = static_cast<int>(dofs.size());
  const std::vector<int>&c1 = chain[p.body1], &c2 = chain[p.body2];
  for (int j = 0; j < nv; ++j) {
    const bool first = std::binary_search(c1.begin(), c1.end(), j);
    const bool second = std::binary_search(c2.begin(), c2.end(), j);
    if (first == second) continue;  // moves both alike, or neither
    dofs.push_back(j);
    signs.push_back(second ? 1 : -1);
  }
  p.dof_count = static_cast<int>(dofs.size()) - p.dof_begin;
  const double reach = margin + g.gap(g1) + g.gap(g2);
  choose_narrow_phase(p);
  pair_reach.push_back(reach);
  soft.push_back(soften(geom(g1) + " and " + geom(g2), ref, imp, margin, edge));
  friction.push_back(mu);
  pair.push_back(p);
  if (pair.size() > kMaxPairs)
    refuse("model: more than " + std::to_string(kMaxPairs) +
           " pairs of geoms may touch; exclude some or set contype and conaffinity");
}

}  // namespace sdpg::core
