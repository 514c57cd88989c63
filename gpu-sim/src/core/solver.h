// Stage `solve`: constrained acceleration as the minimum of
//
//   1/2 (a - a_smooth)' M (a - a_smooth)  +  sum over contacts, limits and friction losses of
//                                            s(J a - a*)
//
// (MuJoCo's primal problem, https://mujoco.readthedocs.io/en/stable/computation), by Newton's
// method with an exact line search; s is that of cone.h for contacts, 1/2 D min(x, 0)^2 for limits
// and Huber's function for friction losses. Except in the middle zone of elliptic cones the cost is
// quadratic as long as no row changes its zone, so a full step that changes none has reached the
// minimum.
//
// Lanes iterate together, but each stops for itself: what a lane holds after it has converged is
// never written again, and work done only for other lanes adds zeros to it. Accumulators start at
// +0 for the same reason (-0 + 0 would change a bit).
#pragma once

#include "core/hessian.h"
#include "core/inertia.h"

namespace sdpg::core {
SDPG_ISA_BEGIN

// Largest magnitude of a position, velocity or acceleration, as in MuJoCo (mjMAXVAL).
template <class T>
inline constexpr T kLargest = T(1e10);

// Friction loss at residual x: the slope of Huber's function and its zones.
template <class P>
struct LossZones {
  typename P::Bool positive, negative;  // at the greatest force, of that sign
  P greatest, stiffness;

  SDPG_INLINE LossZones(P x, P force, P d) : greatest(force), stiffness(d) {
    positive = x * d <= -force;
    negative = x * d >= force;
  }
  // Only where the force is still proportional.
  SDPG_INLINE P curvature() const { return keep(!(positive | negative), stiffness); }
  SDPG_INLINE P force(P x) const {
    return select(positive, greatest, select(negative, -greatest, -(stiffness * x)));
  }
};

template <class P>
SDPG_INLINE P loss_cost(P x, P force, P stiffness) {
  using T = typename P::Scalar;
  const LossZones<P> zones(x, force, stiffness);
  const P linear = force * (abs(x) - P(T(0.5)) * force / stiffness);
  return select(zones.positive | zones.negative, linear, P(T(0.5)) * stiffness * x * x);
}

template <class P, class Team>
SDPG_INLINE LossZones<P> loss_zones(const Scratch<P, Team>& s, int loss, P x) {
  return LossZones<P>(x, P(s.k.loss_force[loss]), P(s.k.loss_stiffness[loss]));
}

template <class P>
SDPG_INLINE P along_limit(const Limit<P>& limit, const P* x) {
  P sum = x[limit.dof] * limit.axis[0];
  for (int k = 1; k < limit.dofs; ++k) sum += x[limit.dof + k] * limit.axis[k];
  return sum;
}

// Cost of the constraints at the two candidates for the start.
template <class P>
struct StartCost {
  P smooth, warm;
  SDPG_INLINE StartCost operator+(const StartCost& other) const {
    return {smooth + other.smooth, warm + other.warm};
  }
};

// Residuals at the warm start and, in the place of the slopes, at qacc_smooth, with the cost of
// each.
template <class P, class Team>
SDPG_FN StartCost<P> start_residuals(Scratch<P, Team>& s) {
  using T = typename P::Scalar;
  const Model& m = s.model;
  const P half = P(T(0.5));
  const auto contacts =
      s.team.template sum<StartCost<P>>(0, s.contact_count, [&](int c) -> StartCost<P> {
        const Contact<P>& contact = s.contacts[c];
        const Pair& pair = m.pair[contact.pair];
        StartCost<P> cost;
        with_cone(s, pair, [&](auto cone) {
          constexpr int dim = decltype(cone)::dim;
          P *warm = s.residual(c), *smooth = s.slope(c);
          const P* reference = s.reference(c);
          multiply_jacobian<dim>(m, pair, s.jacobian(c), s.qacc, warm);
          multiply_jacobian<dim>(m, pair, s.jacobian(c), s.smooth, smooth);
          for (int k = 0; k < dim; ++k) {
            warm[k] -= reference[k];
            smooth[k] -= reference[k];
          }
          const Friction<P, dim> mu(s, contact.pair);
          const P scale = contact.stiffness * half;
          cost = {cone.cost(mu, smooth) * scale, cone.cost(mu, warm) * scale};
        });
        return cost;
      });
  const auto limits =
      s.team.template sum<StartCost<P>>(0, s.limit_count, [&](int l) -> StartCost<P> {
        Limit<P>& limit = s.limits[l];
        limit.slope = along_limit(limit, s.smooth) - limit.reference;
        limit.residual = along_limit(limit, s.qacc) - limit.reference;
        const P smooth = min(limit.slope, T(0)), warm = min(limit.residual, T(0));
        const P scale = limit.stiffness * half;
        return {smooth * smooth * scale, warm * warm * scale};
      });
  const auto losses = s.team.template sum<StartCost<P>>(0, m.nloss, [&](int i) -> StartCost<P> {
    Loss<P>& loss = s.losses[i];
    loss.slope = s.smooth[m.loss_dof[i]] - loss.reference;
    loss.residual = s.qacc[m.loss_dof[i]] - loss.reference;
    const P force = P(s.k.loss_force[i]), stiffness = P(s.k.loss_stiffness[i]);
    return {loss_cost(loss.slope, force, stiffness), loss_cost(loss.residual, force, stiffness)};
  });
  return contacts + limits + losses;
}

// Moves the residuals of `lanes` by `step` along the slopes and brings forces, curvatures,
// qfrc_constraint and the gradient of the cost up to date there. Returns the lanes whose Hessian is
// not the one of before.
template <class P, class Team>
SDPG_FN std::uint32_t advance(Scratch<P, Team>& s, std::uint32_t lanes, P step) {
  using T = typename P::Scalar;
  const Model& m = s.model;
  const auto moves = from_bits<P>(lanes);
  std::uint32_t changed = s.team.unite(0, s.contact_count, [&](int c) -> std::uint32_t {
    Contact<P>& contact = s.contacts[c];
    if (!(contact.lanes & lanes)) return 0;
    Response response{0, 0};
    with_cone(s, m.pair[contact.pair], [&](auto cone) {
      constexpr int dim = decltype(cone)::dim;
      P* residual = s.residual(c);
      const P* slope = s.slope(c);
      for (int k = 0; k < dim; ++k)
        residual[k] = select(moves, residual[k] + step * slope[k], residual[k]);
      const Friction<P, dim> mu(s, contact.pair);
      response =
          cone.respond(mu, contact.stiffness, residual, s.force(c), s.curvature(c), contact.zones);
    });
    return response.changed;
  });
  changed |= s.team.unite(0, s.limit_count, [&](int l) -> std::uint32_t {
    Limit<P>& limit = s.limits[l];
    limit.residual = select(moves, limit.residual + step * limit.slope, limit.residual);
    limit.curvature = keep(limit.residual < T(0), limit.stiffness);
    limit.force = -(limit.curvature * limit.residual);
    return record(limit.pushing, bits(limit.curvature > T(0)));
  });
  changed |= s.team.unite(0, m.nloss, [&](int i) -> std::uint32_t {
    Loss<P>& loss = s.losses[i];
    loss.residual = select(moves, loss.residual + step * loss.slope, loss.residual);
    const LossZones<P> zones = loss_zones(s, i, loss.residual);
    loss.force = zones.force(loss.residual);
    loss.curvature = zones.curvature();
    return record(loss.zones[0], bits(zones.positive)) |
           record(loss.zones[1], bits(zones.negative));
  });
  gather_forces(s, lanes, s.gradient);
  s.team.each(0, m.nv, [&](int i) {
    s.qfrc_constraint[i] = select(moves, s.gradient[i], s.qfrc_constraint[i]);
    s.gradient[i] = s.mass_qacc[i] - s.passive_and_applied[i] - s.qfrc_constraint[i];
  });
  return changed;
}

// Derivatives at `step` along the search, complete in `lanes`; records the zones there.
template <class P, class Team>
SDPG_FN Slope<P> slope_at(Scratch<P, Team>& s, std::uint32_t lanes, const Slope<P>& smooth_part,
                          P step) {
  using T = typename P::Scalar;
  const Model& m = s.model;
  const P zero = P(T(0));
  Slope<P> total{smooth_part.first + step * smooth_part.second, smooth_part.second, 0};
  total = total + s.team.template sum<Slope<P>>(0, s.contact_count, [&](int c) -> Slope<P> {
    Contact<P>& contact = s.contacts[c];
    Slope<P> out{zero, zero, 0};
    if (!(contact.lanes & lanes)) return out;
    with_cone(s, m.pair[contact.pair], [&](auto cone) {
      const Friction<P, decltype(cone)::dim> mu(s, contact.pair);
      out =
          cone.along(mu, contact.stiffness, s.residual(c), s.slope(c), step, contact.search_zones);
    });
    return out;
  });
  total = total + s.team.template sum<Slope<P>>(0, s.limit_count, [&](int l) -> Slope<P> {
    Limit<P>& limit = s.limits[l];
    const P there = limit.residual + step * limit.slope;
    const P weighted = keep(there < T(0), limit.stiffness) * limit.slope;
    const std::uint32_t pushing = bits((there < T(0)) & (limit.stiffness > T(0)));
    return {weighted * there, weighted * limit.slope, record(limit.search_pushing, pushing)};
  });
  total = total + s.team.template sum<Slope<P>>(0, m.nloss, [&](int i) -> Slope<P> {
    Loss<P>& loss = s.losses[i];
    const P there = loss.residual + step * loss.slope;
    const LossZones<P> zones = loss_zones(s, i, there);
    const std::uint32_t differ = record(loss.search_zones[0], bits(zones.positive)) |
                                 record(loss.search_zones[1], bits(zones.negative));
    return {-(zones.force(there) * loss.slope), zones.curvature() * loss.slope * loss.slope,
            differ};
  });
  return total;
}

// The exact minimum along the search direction, for the lanes in `active`. The derivative
// increases: Newton's method inside a bracket ends once its step meets the zones it came from,
// between which it is linear; in the lanes in `curved`, which have elliptic cones, once it is
// small. `unchanged` receives the lanes in which the full step meets the zones of the start.
template <class P, class Team>
SDPG_FN P line_search(Scratch<P, Team>& s, std::uint32_t active, std::uint32_t curved, P noise,
                      std::uint32_t* unchanged) {
  using T = typename P::Scalar;
  const Model& m = s.model;
  const P zero = P(T(0));
  const Slope<P> smooth_part = s.team.template sum<Slope<P>>(0, m.nv, [&](int i) -> Slope<P> {
    return {(s.mass_qacc[i] - s.passive_and_applied[i]) * s.search[i],
            s.mass_search[i] * s.search[i], 0};
  });
  s.team.each(0, s.contact_count, [&](int c) {
    Contact<P>& contact = s.contacts[c];
    with_cone(s, m.pair[contact.pair], [&](auto cone) {
      for (int z = 0; z < decltype(cone)::zones; ++z) contact.search_zones[z] = contact.zones[z];
    });
  });
  s.team.each(0, s.limit_count, [&](int l) { s.limits[l].search_pushing = s.limits[l].pushing; });
  s.team.each(0, m.nloss, [&](int i) {
    for (int z = 0; z < 2; ++z) s.losses[i].search_zones[z] = s.losses[i].zones[z];
  });
  P steepest = zero;  // what the derivative is measured against: its size at the start
  if (curved) {
    const P gradient =
        s.team.template sum<P>(0, m.nv, [&](int i) { return s.gradient[i] * s.search[i]; });
    steepest = max(abs(gradient) * P(T(1e-3)), noise);
  }
  const auto unsettled = [&](const Slope<P>& slope) {
    std::uint32_t lanes = slope.differ & ~curved;
    if (curved) lanes |= curved & bits(abs(slope.first) > steepest);
    return lanes;
  };

  P step = P(T(1)), low = zero, high = P(T(__builtin_inff()));
  Slope<P> slope = slope_at(s, active, smooth_part, step);
  *unchanged = active & ~slope.differ;
  std::uint32_t moving = active & unsettled(slope);
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
    slope = slope_at(s, moving, smooth_part, step);
    moving &= unsettled(slope) | bits(outside);  // the middle of the bracket is no minimum
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
  if (s.contact_count == 0 && s.limit_count == 0 && m.nloss == 0) {
    s.team.each(0, nv, [&](int i) {
      s.qacc[i] = s.smooth[i];
      s.qfrc_constraint[i] = zero;
    });
    return 0;
  }

  // Start from the cheaper of the last step's acceleration and the unconstrained one.
  s.team.each(0, nv, [&](int i) { s.qacc[i] = s.warmstart[i]; });
  multiply(s.team, m.mass, nv, s.mass, s.qacc, s.mass_qacc);
  StartCost<P> cost = start_residuals(s);
  // Of the unconstrained motion: what the size of a step is measured against.
  const StartCost<P> motion = s.team.template sum<StartCost<P>>(0, nv, [&](int i) -> StartCost<P> {
    return {abs(s.smooth[i] * s.passive_and_applied[i]),
            (s.mass_qacc[i] - s.passive_and_applied[i]) * (s.qacc[i] - s.smooth[i]) * P(T(0.5))};
  });
  cost.warm += motion.warm;
  // The lanes with any row, and those of them with an elliptic cone. A lane whose motion is beyond
  // what a state may be is left alone: it is faulty, and nobody waits for it.
  std::uint32_t constrained = m.nloss > 0 ? bits(all_lanes<P>()) : 0, curved = 0;
  constrained |=
      s.team.unite(0, s.limit_count, [&](int l) -> std::uint32_t { return s.limits[l].lanes; });
  constrained |=
      s.team.unite(0, s.contact_count, [&](int c) -> std::uint32_t { return s.contacts[c].lanes; });
  if (m.elliptic)
    curved = s.team.unite(0, s.contact_count, [&](int c) -> std::uint32_t {
      return m.pair[s.contacts[c].pair].condim > 1 ? s.contacts[c].lanes : 0;
    });
  constrained &= ~s.team.unite(0, nv, [&](int i) -> std::uint32_t {
    return bits(!((abs(s.smooth[i]) <= kLargest<T>)&(abs(s.qvel[i]) <= kLargest<T>)));
  });
  const auto warm =
      m.warm_start ? (cost.warm < cost.smooth) & from_bits<P>(constrained) : no_lanes<P>();
  const P energy = motion.smooth + select(warm, cost.warm, cost.smooth);
  s.team.each(0, nv, [&](int i) {
    s.qacc[i] = select(warm, s.qacc[i], s.smooth[i]);
    s.mass_qacc[i] = select(warm, s.mass_qacc[i], s.passive_and_applied[i]);
    s.qfrc_constraint[i] = zero;
  });
  s.team.each(0, s.contact_count, [&](int c) {
    Contact<P>& contact = s.contacts[c];
    P *residual = s.residual(c), *force = s.force(c);
    const P* smooth = s.slope(c);
    for (int k = 0; k < m.pair[contact.pair].condim; ++k) {
      residual[k] = select(warm, residual[k], smooth[k]);
      force[k] = zero;
    }
    for (auto& zone : contact.zones) zone = 0;
  });
  s.team.each(0, s.limit_count, [&](int l) {
    s.limits[l].residual = select(warm, s.limits[l].residual, s.limits[l].slope);
    s.limits[l].pushing = 0;
  });
  s.team.each(0, m.nloss, [&](int i) {
    s.losses[i].residual = select(warm, s.losses[i].residual, s.losses[i].slope);
    for (int z = 0; z < 2; ++z) s.losses[i].zones[z] = 0;
  });

  // A full step that changed nothing has reached the minimum up to rounding. In float32, and where
  // an exact minimum is asked for, one more such step (with the same factors) removes what rounding
  // left.
  const bool refine = sizeof(T) == 4 || s.k.tolerance == T(0);
  // A step this small against the energy above is rounding; below the larger bound it is rounding
  // as soon as it no longer shrinks.
  constexpr T noise = sizeof(T) == 4 ? T(1e-12) : T(1e-30);
  constexpr T doubtful = sizeof(T) == 4 ? T(1e-9) : T(1e-22);
  advance(s, constrained, zero);
  std::uint32_t active = constrained, refactor = active, settled = 0;
  P last_decrement = P(T(__builtin_inff()));
  for (int iteration = 0; iteration < m.iterations; ++iteration) {
    const P gradient_square =
        s.team.template sum<P>(0, nv, [&](int i) { return s.gradient[i] * s.gradient[i]; });
    active &= bits(sqrt(gradient_square) * s.k.solver_scale > s.k.tolerance);
    if (!active) break;

    if (refactor & active) {
      build_hessian(s, active);
      factor_hessian(s);
    }
    s.team.each(0, nv, [&](int i) { s.search[i] = -s.gradient[i]; });
    solve_hessian(s, s.search);
    const P decrement =
        -s.team.template sum<P>(0, nv, [&](int i) { return s.gradient[i] * s.search[i]; });
    active &= bits(decrement > energy * P(noise));
    active &= ~bits((decrement < energy * P(doubtful)) & (decrement > last_decrement * P(T(0.25))));
    // A step after an exact one only removes rounding: not if the cost would not improve by the
    // tolerance.
    active &= ~(settled & bits(decrement * P(T(0.5) * s.k.solver_scale) < s.k.tolerance));
    if (!active) break;
    last_decrement = decrement;

    multiply(s.team, m.mass, nv, s.mass, s.search, s.mass_search);
    s.team.each(0, s.contact_count, [&](int c) {
      if (!(s.contacts[c].lanes & active)) return;
      const Pair& pair = m.pair[s.contacts[c].pair];
      with_cone(s, pair, [&](auto cone) {
        multiply_jacobian<decltype(cone)::dim>(m, pair, s.jacobian(c), s.search, s.slope(c));
      });
    });
    s.team.each(0, s.limit_count,
                [&](int l) { s.limits[l].slope = along_limit(s.limits[l], s.search); });
    s.team.each(0, m.nloss, [&](int i) { s.losses[i].slope = s.search[m.loss_dof[i]]; });

    std::uint32_t unchanged = 0;
    const P step = line_search(s, active, curved, energy * P(noise), &unchanged);
    const auto moves = from_bits<P>(active);
    s.team.each(0, nv, [&](int i) {
      s.qacc[i] = select(moves, s.qacc[i] + step * s.search[i], s.qacc[i]);
      s.mass_qacc[i] = select(moves, s.mass_qacc[i] + step * s.mass_search[i], s.mass_qacc[i]);
    });
    refactor = advance(s, active, step);
    const std::uint32_t done = refine ? unchanged & settled : unchanged;
    settled = unchanged;
    active &= ~done;
  }
  return active;
}

SDPG_ISA_END
}  // namespace sdpg::core
