// Stage `solve`: constrained acceleration as the minimum of
//
//   1/2 (a - a_smooth)' M (a - a_smooth)  +  sum over rows of 1/2 D min(J a - a*, 0)^2
//
// (MuJoCo's primal problem, https://mujoco.readthedocs.io/en/stable/computation), by Newton's
// method with an exact line search. The cost is quadratic between changes of the set of pushing
// rows, so a full step that leaves the set as it was has reached the minimum.
//
// Lanes iterate together, but each stops for itself: what a lane holds after it has converged is
// never written again, and work done only for other lanes adds zeros to it. Accumulators start at
// +0 for the same reason (-0 + 0 would change a bit).
#pragma once

#include "core/constraint.h"
#include "core/inertia.h"
#include "core/scratch.h"

namespace sdpg::core {
SDPG_ISA_BEGIN

// Calls f(edge, value) for the edges of a contact whose base directions hold x: n +- mu t.
template <class P, class Function>
SDPG_INLINE void for_edges(const Pair& pair, P mu, const P* x, Function f) {
  if (pair.condim == 1) {
    f(0, x[0]);
    return;
  }
  const P side1 = mu * x[1], side2 = mu * x[2];
  f(0, x[0] + side1);
  f(1, x[0] - side1);
  f(2, x[0] + side2);
  f(3, x[0] - side2);
}

SDPG_INLINE int edge_count(const Pair& pair) { return pair.condim == 1 ? 1 : 4; }

// Cost of the constraints at the two candidates for the start.
template <class P>
struct StartCost {
  P smooth, warm;
};

// Residuals at qacc_smooth and, into `residual`, at the warm start, with the cost of each; also the
// lanes that have any row at all.
template <class P, class Team>
SDPG_FN StartCost<P> start_residuals(Scratch<P, Team>& s, std::uint32_t* constrained) {
  using T = typename P::Scalar;
  const Model& m = s.model;
  P smooth = P(T(0)), warm = P(T(0));
  auto lanes = no_lanes<P>();
  for (int c = 0; c < s.contact_count; ++c) {
    Contact<P>& contact = s.contacts[c];
    const Pair& pair = m.pair[contact.pair];
    const P mu = constant<P>(s.k.friction, contact.pair);
    lanes = lanes | (contact.stiffness > T(0));
    multiply_rows(s, pair, s.rows(c), s.smooth, contact.at_smooth);
    multiply_rows(s, pair, s.rows(c), s.qacc, contact.residual);
    for (int i = 0; i < 3; ++i) {
      contact.at_smooth[i] -= contact.reference[i];
      contact.residual[i] -= contact.reference[i];
    }
    const auto cost = [&](const P* residual) {
      P sum = P(T(0));
      for_edges(pair, mu, residual, [&](int, P x) {
        const P push = min(x, T(0));
        sum += push * push;
      });
      return sum * contact.stiffness;
    };
    smooth += cost(contact.at_smooth);
    warm += cost(contact.residual);
  }
  for (int l = 0; l < s.limit_count; ++l) {
    Limit<P>& limit = s.limits[l];
    lanes = lanes | (limit.stiffness > T(0));
    limit.at_smooth = s.smooth[limit.dof] * limit.sign - limit.reference;
    limit.residual = s.qacc[limit.dof] * limit.sign - limit.reference;
    const P at_smooth = min(limit.at_smooth, T(0)), at_warm = min(limit.residual, T(0));
    smooth += at_smooth * at_smooth * limit.stiffness;
    warm += at_warm * at_warm * limit.stiffness;
  }
  *constrained = bits(lanes);
  return {smooth * P(T(0.5)), warm * P(T(0.5))};
}

// Forces and curvature of every row at the present residuals, qfrc_constraint and the gradient of
// the cost. Returns the lanes whose set of pushing rows is not the recorded one, and records the
// new one.
template <class P, class Team>
SDPG_FN std::uint32_t update_forces(Scratch<P, Team>& s) {
  using T = typename P::Scalar;
  const Model& m = s.model;
  std::uint32_t changed = 0;
  for (int i = 0; i < m.nv; ++i) s.qfrc_constraint[i] = P(T(0));
  for (int c = 0; c < s.contact_count; ++c) {
    Contact<P>& contact = s.contacts[c];
    const Pair& pair = m.pair[contact.pair];
    const P mu = constant<P>(s.k.friction, contact.pair);
    P force[4], push[4];  // per edge: force, and D where it pushes
    std::uint32_t pushing_somewhere = 0;
    for_edges(pair, mu, contact.residual, [&](int edge, P x) {
      const auto pushes = x < T(0);
      push[edge] = keep(pushes, contact.stiffness);
      force[edge] = -(push[edge] * x);
      const std::uint32_t lanes = bits(push[edge] > T(0));
      changed |= lanes ^ contact.pushing[edge];
      contact.pushing[edge] = lanes;
      pushing_somewhere |= lanes;
    });
    const P *rows = s.rows(c), zero = P(T(0));
    if (pair.condim == 1) {
      contact.force[0] = force[0];
      contact.force[1] = contact.force[2] = zero;
      contact.curvature[0] = push[0];
    } else {
      contact.force[0] = (force[0] + force[1]) + (force[2] + force[3]);
      contact.force[1] = mu * (force[0] - force[1]);
      contact.force[2] = mu * (force[2] - force[3]);
      contact.curvature[0] = (push[0] + push[1]) + (push[2] + push[3]);
      contact.curvature[1] = mu * (push[0] - push[1]);
      contact.curvature[2] = mu * (push[2] - push[3]);
      contact.curvature[3] = mu * mu * (push[0] + push[1]);
      contact.curvature[4] = mu * mu * (push[2] + push[3]);
    }
    if (!pushing_somewhere) continue;
    for (int i = 0; i < pair.dof_count; ++i) {
      P& total = s.qfrc_constraint[m.pair_dof[pair.dof_begin + i]];
      total += rows[i] * contact.force[0];
      if (pair.condim == 1) continue;
      total += rows[m.max_chain + i] * contact.force[1];
      total += rows[2 * m.max_chain + i] * contact.force[2];
    }
  }
  for (int l = 0; l < s.limit_count; ++l) {
    Limit<P>& limit = s.limits[l];
    limit.curvature = keep(limit.residual < T(0), limit.stiffness);
    limit.force = -(limit.curvature * limit.residual);
    const std::uint32_t lanes = bits(limit.curvature > T(0));
    changed |= lanes ^ limit.pushing;
    limit.pushing = lanes;
    s.qfrc_constraint[limit.dof] += limit.force * limit.sign;
  }
  for (int i = 0; i < m.nv; ++i)
    s.gradient[i] = s.mass_qacc[i] - s.passive_and_applied[i] - s.qfrc_constraint[i];
  return changed;
}

// H = M + J' C J, factored.
template <class P, class Team>
SDPG_FN void factor_hessian(Scratch<P, Team>& s) {
  using T = typename P::Scalar;
  const Model& m = s.model;
  for (int i = 0; i < m.nv; ++i) {
    P* row = s.hessian + triangle(i, 0);
    for (int c = m.hessian.begin[i]; c < m.hessian.begin[i + 1]; ++c)
      row[m.hessian.col[c]] = P(T(0));
    for (int c = m.mass.begin[i]; c < m.mass.begin[i + 1]; ++c)
      row[m.mass.col[c]] = s.mass[triangle(i, m.mass.col[c])];
    row[i] = s.mass[triangle(i, i)];
  }
  for (int c = 0; c < s.contact_count; ++c) {
    const Contact<P>& contact = s.contacts[c];
    const Pair& pair = m.pair[contact.pair];
    std::uint32_t pushing_somewhere = 0;
    for (int e = 0; e < edge_count(pair); ++e) pushing_somewhere |= contact.pushing[e];
    if (!pushing_somewhere) continue;
    const P *n = s.rows(c), *t1 = n + m.max_chain, *t2 = t1 + m.max_chain;
    const P* w = contact.curvature;
    const int* dofs = m.pair_dof + pair.dof_begin;
    for (int a = 0; a < pair.dof_count; ++a) {
      P* row = s.hessian + triangle(dofs[a], 0);
      if (pair.condim == 1) {
        const P scaled = w[0] * n[a];
        for (int b = 0; b <= a; ++b) row[dofs[b]] += scaled * n[b];
        continue;
      }
      const P scaled_n = w[0] * n[a] + w[1] * t1[a] + w[2] * t2[a];
      const P scaled_1 = w[1] * n[a] + w[3] * t1[a];
      const P scaled_2 = w[2] * n[a] + w[4] * t2[a];
      for (int b = 0; b <= a; ++b) {
        P sum = row[dofs[b]] + scaled_n * n[b];
        sum += scaled_1 * t1[b];
        row[dofs[b]] = sum + scaled_2 * t2[b];
      }
    }
  }
  for (int l = 0; l < s.limit_count; ++l)
    s.hessian[triangle(s.limits[l].dof, s.limits[l].dof)] += s.limits[l].curvature;
  factor(s.team, m.hessian, m.nv, s.hessian);
}

// First and second derivative of the cost along the search direction.
template <class P>
struct Slope {
  P first, second;
};

// At `step` along the search; records the pushing rows there and returns the lanes in which they
// differ from those recorded before.
template <class P, class Team>
SDPG_FN Slope<P> slope_at(Scratch<P, Team>& s, const Slope<P>& smooth_part, P step,
                          std::uint32_t* changed) {
  using T = typename P::Scalar;
  P first = smooth_part.first + step * smooth_part.second, second = smooth_part.second;
  std::uint32_t differ = 0;
  for (int c = 0; c < s.contact_count; ++c) {
    Contact<P>& contact = s.contacts[c];
    const Pair& pair = s.model.pair[contact.pair];
    const P mu = constant<P>(s.k.friction, contact.pair);
    P along[4];
    for_edges(pair, mu, contact.slope, [&](int edge, P y) { along[edge] = y; });
    for_edges(pair, mu, contact.residual, [&](int edge, P x) {
      const P there = x + step * along[edge];
      const P push = keep(there < T(0), contact.stiffness);
      const P weighted = push * along[edge];
      first += weighted * there;
      second += weighted * along[edge];
      const std::uint32_t lanes = bits(push > T(0));
      differ |= lanes ^ contact.searching[edge];
      contact.searching[edge] = lanes;
    });
  }
  for (int l = 0; l < s.limit_count; ++l) {
    Limit<P>& limit = s.limits[l];
    const P there = limit.residual + step * limit.slope;
    const P push = keep(there < T(0), limit.stiffness);
    const P weighted = push * limit.slope;
    first += weighted * there;
    second += weighted * limit.slope;
    const std::uint32_t lanes = bits(push > T(0));
    differ |= lanes ^ limit.searching;
    limit.searching = lanes;
  }
  *changed = differ;
  return {first, second};
}

// The exact minimum along the search direction, for the lanes in `active`. The derivative is
// piecewise linear and increasing: Newton's method inside a bracket ends once two steps meet the
// same pushing rows. `unchanged` receives the lanes in which the full step meets the rows of the
// start.
template <class P, class Team>
SDPG_FN P line_search(Scratch<P, Team>& s, std::uint32_t active, std::uint32_t* unchanged) {
  using T = typename P::Scalar;
  const Model& m = s.model;
  const P zero = P(T(0));
  Slope<P> smooth_part{zero, zero};
  for (int i = 0; i < m.nv; ++i) {
    smooth_part.first += (s.mass_qacc[i] - s.passive_and_applied[i]) * s.search[i];
    smooth_part.second += s.mass_search[i] * s.search[i];
  }
  for (int c = 0; c < s.contact_count; ++c)
    for (int e = 0; e < edge_count(s.model.pair[s.contacts[c].pair]); ++e)
      s.contacts[c].searching[e] = s.contacts[c].pushing[e];
  for (int l = 0; l < s.limit_count; ++l) s.limits[l].searching = s.limits[l].pushing;

  P step = P(T(1)), low = zero, high = P(T(__builtin_inff()));
  std::uint32_t changed = 0;
  Slope<P> slope = slope_at(s, smooth_part, step, &changed);
  *unchanged = active & ~changed;
  std::uint32_t moving = active & changed;
  for (int i = 0; i < m.ls_iterations && moving; ++i) {
    const auto moves = from_bits<P>(moving);
    const auto downhill = slope.first < T(0);
    low = select(moves & downhill, step, low);
    high = select(moves & !downhill, step, high);
    P next = step - slope.first / slope.second;
    const auto outside = !((next > low) & (next < high));
    next = select(outside, (low + high) * P(T(0.5)), next);
    // Nothing representable is left between the ends.
    const auto tight = !((next > low) & (next < high));
    step = select(moves & !tight, next, step);
    moving &= ~bits(tight);
    slope = slope_at(s, smooth_part, step, &changed);
    moving &= changed;
  }
  return step;
}

// Leaves qacc and qfrc_constraint; returns the lanes that ran out of iterations.
template <class P, class Team>
SDPG_FN std::uint32_t solve(Scratch<P, Team>& s) {
  using T = typename P::Scalar;
  const Model& m = s.model;
  const int nv = m.nv;
  const P zero = P(T(0));
  if (s.contact_count == 0 && s.limit_count == 0) {
    for (int i = 0; i < nv; ++i) {
      s.qacc[i] = s.smooth[i];
      s.qfrc_constraint[i] = zero;
    }
    return 0;
  }

  // Start from the cheaper of the last step's acceleration and the unconstrained one.
  for (int i = 0; i < nv; ++i) s.qacc[i] = s.warmstart[i];
  multiply(s.team, m.mass, nv, s.mass, s.qacc, s.mass_qacc);
  std::uint32_t constrained = 0;
  StartCost<P> cost = start_residuals(s, &constrained);
  P energy = zero;  // of the unconstrained motion: what the size of a step is measured against
  for (int i = 0; i < nv; ++i) {
    cost.warm +=
        (s.mass_qacc[i] - s.passive_and_applied[i]) * (s.qacc[i] - s.smooth[i]) * P(T(0.5));
    energy += abs(s.smooth[i] * s.passive_and_applied[i]);
  }
  const auto warm =
      m.warm_start ? (cost.warm < cost.smooth) & from_bits<P>(constrained) : no_lanes<P>();
  energy += select(warm, cost.warm, cost.smooth);
  for (int i = 0; i < nv; ++i) {
    s.qacc[i] = select(warm, s.qacc[i], s.smooth[i]);
    s.mass_qacc[i] = select(warm, s.mass_qacc[i], s.passive_and_applied[i]);
  }
  for (int c = 0; c < s.contact_count; ++c) {
    Contact<P>& contact = s.contacts[c];
    for (int i = 0; i < 3; ++i)
      contact.residual[i] = select(warm, contact.residual[i], contact.at_smooth[i]);
    for (int e = 0; e < 4; ++e) contact.pushing[e] = 0;
  }
  for (int l = 0; l < s.limit_count; ++l) {
    s.limits[l].residual = select(warm, s.limits[l].residual, s.limits[l].at_smooth);
    s.limits[l].pushing = 0;
  }

  // A full step that changed nothing has reached the minimum up to rounding. In float32, and where
  // an exact minimum is asked for, one more such step (with the same factors) removes what rounding
  // left.
  const bool refine = sizeof(T) == 4 || s.k.tolerance == T(0);
  // A step this small against the energy above is rounding.
  constexpr T noise = sizeof(T) == 4 ? T(1e-12) : T(1e-30);
  update_forces(s);
  std::uint32_t active = constrained, refactor = active, settled = 0;
  for (int iteration = 0; iteration < m.iterations; ++iteration) {
    P gradient_square = zero;
    for (int i = 0; i < nv; ++i) gradient_square += s.gradient[i] * s.gradient[i];
    active &= bits(sqrt(gradient_square) * s.k.solver_scale > s.k.tolerance);
    if (!active) break;

    if (refactor & active) factor_hessian(s);
    for (int i = 0; i < nv; ++i) s.search[i] = -s.gradient[i];
    solve_factored(s.team, m.hessian, nv, s.hessian, s.search);
    P decrement = zero;
    for (int i = 0; i < nv; ++i) decrement -= s.gradient[i] * s.search[i];
    active &= bits(decrement > energy * P(noise));
    if (!active) break;

    multiply(s.team, m.mass, nv, s.mass, s.search, s.mass_search);
    for (int c = 0; c < s.contact_count; ++c)
      multiply_rows(s, m.pair[s.contacts[c].pair], s.rows(c), s.search, s.contacts[c].slope);
    for (int l = 0; l < s.limit_count; ++l)
      s.limits[l].slope = s.search[s.limits[l].dof] * s.limits[l].sign;

    std::uint32_t unchanged = 0;
    const P step = line_search(s, active, &unchanged);
    const auto moves = from_bits<P>(active);
    for (int i = 0; i < nv; ++i) {
      s.qacc[i] = select(moves, s.qacc[i] + step * s.search[i], s.qacc[i]);
      s.mass_qacc[i] = select(moves, s.mass_qacc[i] + step * s.mass_search[i], s.mass_qacc[i]);
    }
    for (int c = 0; c < s.contact_count; ++c) {
      Contact<P>& contact = s.contacts[c];
      for (int i = 0; i < 3; ++i)
        contact.residual[i] =
            select(moves, contact.residual[i] + step * contact.slope[i], contact.residual[i]);
    }
    for (int l = 0; l < s.limit_count; ++l) {
      Limit<P>& limit = s.limits[l];
      limit.residual = select(moves, limit.residual + step * limit.slope, limit.residual);
    }
    refactor = update_forces(s);
    const std::uint32_t done = refine ? unchanged & settled : unchanged;
    settled = unchanged;
    active &= ~done;
  }
  return active;
}

SDPG_ISA_END
}  // namespace sdpg::core
