// The cost of a contact as a function of its residual x (normal, tangents, rotations), for both
// friction cones of MuJoCo, with D the stiffness of the normal or of every edge.
//
// Pyramid: 1/2 D min(e, 0)^2 for each edge e = x_0 +- mu_k x_k.
// Ellipse: with t = |(w_k x_k)|, w_k = mu_k / mu and mu = mu_1 / sqrt(impratio), half of D times
// the square of the distance of (x_0, t) to the cone x_0 >= mu t: nothing inside of it (top zone),
// the distance to its apex where mu x_0 + t <= 0 (bottom zone), else that to its side (middle
// zone), where the cost is not quadratic.
#pragma once

#include "core/parameter.h"
#include "core/scratch.h"

namespace sdpg::core {
SDPG_ISA_BEGIN

// mjMINMU.
template <class T>
inline constexpr T kFrictionFloor = T(1e-5);

// Friction of a pair's directions behind the normal.
template <class P, int Dim>
struct Friction {
  P mu[Dim > 1 ? Dim - 1 : 1];
  using T = typename P::Scalar;
  T impratio_root;

  template <class Team>
  SDPG_INLINE Friction(const Scratch<P, Team>& s, int index) : impratio_root(s.k.impratio_root) {
    if constexpr (Dim > 1) {
      const Pair& pair = s.model.pair[index];
      if (pair.friction_geom1 >= 0) {
        mix(s, pair);
        return;
      }
    }
    for (int k = 0; k + 1 < Dim; ++k) mu[k] = constant<P>(s.k.friction, 5 * index + k);
  }
  // Of the environments' own geoms.
  template <class Team>
  SDPG_FN void mix(const Scratch<P, Team>& s, const Pair& pair) {
    for (int k = 0; k + 1 < Dim; ++k) {
      const int number = k < 2 ? 0 : k == 2 ? 1 : 2;
      const auto of = [&](int geom) {
        return parameter(s, Parameter::kGeomFriction, 3 * geom + number);
      };
      mu[k] = max(max(of(pair.friction_geom1), of(pair.friction_geom2)), kFrictionFloor<T>);
    }
  }
  // Of the regularised cone: friction of the first tangent over the root of impratio.
  SDPG_INLINE P regularised() const { return mu[0] / P(impratio_root); }
};

// First and second derivative of the cost along the search direction, and the lanes whose zones are
// not the recorded ones or in which the cost is not quadratic.
template <class P>
struct Slope {
  P first, second;
  std::uint32_t differ;
  SDPG_INLINE Slope operator+(const Slope& other) const {
    return {first + other.first, second + other.second, differ | other.differ};
  }
};

// Lanes of a contact at a new residual.
struct Response {
  std::uint32_t pushing;  // with any force
  std::uint32_t changed;  // in other zones than recorded, or where the cost is not quadratic
};

// Records a zone's lanes; returns those that have entered or left it.
template <class Word>
SDPG_INLINE std::uint32_t record(Word& zone, std::uint32_t lanes) {
  const std::uint32_t differ = zone ^ lanes;
  zone = static_cast<Word>(lanes);
  return differ;
}

template <int Dim>
struct Pyramid {
  static constexpr int dim = Dim;
  static constexpr int zones = Dim == 1 ? 1 : 2 * (Dim - 1);
  static constexpr bool elliptic = false;

  // R of an edge over that of the normal's inverse weight: 2 mu^2 of the first edge's R.
  template <class P>
  SDPG_INLINE static P regularisation_factor(const Friction<P, Dim>& friction) {
    using T = typename P::Scalar;
    if constexpr (Dim == 1) {
      return P(T(1));
    } else {
      const P mu = friction.regularised(), first = friction.mu[0];
      return T(2) * mu * mu * (T(1) + first * first);
    }
  }

  // f(zone, value) for every edge.
  template <class P, class F>
  SDPG_INLINE static void edges(const Friction<P, Dim>& friction, const P* x, const F& f) {
    if constexpr (Dim == 1) {
      f(0, x[0]);
    } else {
      for (int k = 1; k < Dim; ++k) {
        const P side = friction.mu[k - 1] * x[k];
        f(2 * k - 2, x[0] + side);
        f(2 * k - 1, x[0] - side);
      }
    }
  }

  // Twice the cost over D.
  template <class P>
  SDPG_INLINE static P cost(const Friction<P, Dim>& friction, const P* x) {
    using T = typename P::Scalar;
    P sum = P(T(0));
    edges(friction, x, [&](int, P edge) {
      const P push = min(edge, T(0));
      sum += push * push;
    });
    return sum;
  }

  template <class P, class Word>
  SDPG_INLINE static Response respond(const Friction<P, Dim>& friction, P stiffness, const P* x,
                                      P* force, P* curvature, Word* zone) {
    using T = typename P::Scalar;
    P edge_force[zones], push[zones];  // push: D where the edge pushes
    Response lanes{0, 0};
    edges(friction, x, [&](int e, P edge) {
      push[e] = keep(edge < T(0), stiffness);
      edge_force[e] = -(push[e] * edge);
      const std::uint32_t pushing = bits(push[e] > T(0));
      lanes.changed |= record(zone[e], pushing);
      lanes.pushing |= pushing;
    });
    if constexpr (Dim == 1) {
      force[0] = edge_force[0];
      curvature[0] = push[0];
    } else {
      P total_force = P(T(0)), total_push = P(T(0));
      for (int k = 1; k < Dim; ++k) {
        const P mu = friction.mu[k - 1], both = push[2 * k - 2] + push[2 * k - 1];
        total_force += edge_force[2 * k - 2] + edge_force[2 * k - 1];
        total_push += both;
        force[k] = mu * (edge_force[2 * k - 2] - edge_force[2 * k - 1]);
        curvature[triangle(k, 0)] = mu * (push[2 * k - 2] - push[2 * k - 1]);
        curvature[triangle(k, k)] = mu * mu * both;
      }
      force[0] = total_force;
      curvature[0] = total_push;
    }
    return lanes;
  }

  // At x + step slope.
  template <class P, class Word>
  SDPG_INLINE static Slope<P> along(const Friction<P, Dim>& friction, P stiffness, const P* x,
                                    const P* slope, P step, Word* zone) {
    using T = typename P::Scalar;
    Slope<P> out{P(T(0)), P(T(0)), 0};
    P rate[zones];
    edges(friction, slope, [&](int e, P y) { rate[e] = y; });
    edges(friction, x, [&](int e, P edge) {
      const P there = edge + step * rate[e];
      const P push = keep(there < T(0), stiffness);
      const P weighted = push * rate[e];
      out.first += weighted * there;
      out.second += weighted * rate[e];
      out.differ |= record(zone[e], bits(push > T(0)));
    });
    return out;
  }

  // out = C v for the curvature above; one column of J' C.
  template <class P>
  SDPG_INLINE static void scale(const P* curvature, const P* v, P* out) {
    out[0] = curvature[0] * v[0];
    for (int k = 1; k < Dim; ++k) {
      out[0] += curvature[triangle(k, 0)] * v[k];
      out[k] = curvature[triangle(k, 0)] * v[0] + curvature[triangle(k, k)] * v[k];
    }
  }
};

template <int Dim>
struct Ellipse {
  static constexpr int dim = Dim;
  static constexpr int zones = 2;
  static constexpr bool elliptic = true;

  template <class P>
  SDPG_INLINE static P regularisation_factor(const Friction<P, Dim>&) {
    return P(typename P::Scalar(1));
  }

  // A residual in the coordinates in which the cone is round.
  template <class P>
  struct Point {
    P mu, side[Dim - 1], weight[Dim - 1];  // side_k = weight_k x_k
    P across;                              // length of `side`
    typename P::Bool bottom, middle;

    SDPG_INLINE Point(const Friction<P, Dim>& friction, const P* x, P stiffness) {
      using T = typename P::Scalar;
      mu = friction.regularised();
      const P inverse = T(1) / mu;
      P square = P(T(0));
      for (int k = 0; k + 1 < Dim; ++k) {
        weight[k] = friction.mu[k] * inverse;
        side[k] = weight[k] * x[k + 1];
        square += side[k] * side[k];
      }
      across = sqrt(square);
      const auto exists = stiffness > T(0), outside = exists & (x[0] < mu * across);
      bottom = exists & (mu * x[0] + across <= T(0)) & (x[0] < T(0));
      middle = outside & !bottom;
    }
  };

  template <class P>
  SDPG_INLINE static P cost(const Friction<P, Dim>& friction, const P* x) {
    using T = typename P::Scalar;
    const Point<P> at(friction, x, P(T(1)));
    const P gap = x[0] - at.mu * at.across;
    return keep(at.bottom, x[0] * x[0] + at.across * at.across) +
           keep(at.middle, gap * gap / (T(1) + at.mu * at.mu));
  }

  template <class P, class Word>
  SDPG_INLINE static Response respond(const Friction<P, Dim>& friction, P stiffness, const P* x,
                                      P* force, P* curvature, Word* zone) {
    using T = typename P::Scalar;
    const Point<P> at(friction, x, stiffness);
    const P middle = keep(at.middle, stiffness / (T(1) + at.mu * at.mu));
    const P bottom = keep(at.bottom, stiffness);
    const P inverse = T(1) / select(at.middle, at.across, T(1));
    const P gap = keep(at.middle, x[0] - at.mu * at.across);
    // Negative of the middle zone's d cost / d across, and the bend of the circle.
    const P pull = middle * gap * at.mu, bend = -(pull * inverse);
    const P radial = middle * at.mu * at.mu - bend;
    force[0] = -(bottom * x[0]) - middle * gap;
    curvature[0] = bottom + middle;
    P direction[Dim - 1];
    for (int k = 1; k < Dim; ++k) {
      const P weight = at.weight[k - 1];
      direction[k - 1] = keep(at.middle, weight * at.side[k - 1] * inverse);
      force[k] = pull * direction[k - 1] - bottom * weight * at.side[k - 1];
      curvature[triangle(k, 0)] = -(middle * at.mu * direction[k - 1]);
      for (int l = 1; l < k; ++l)
        curvature[triangle(k, l)] = radial * direction[k - 1] * direction[l - 1];
      curvature[triangle(k, k)] =
          radial * direction[k - 1] * direction[k - 1] + (bottom + bend) * weight * weight;
    }
    const std::uint32_t bottom_lanes = bits(at.bottom), middle_lanes = bits(at.middle);
    const std::uint32_t changed = record(zone[0], bottom_lanes) | record(zone[1], middle_lanes);
    return {bottom_lanes | middle_lanes, changed | middle_lanes};
  }

  template <class P, class Word>
  SDPG_INLINE static Slope<P> along(const Friction<P, Dim>& friction, P stiffness, const P* x,
                                    const P* slope, P step, Word* zone) {
    using T = typename P::Scalar;
    P there[Dim];
    for (int k = 0; k < Dim; ++k) there[k] = x[k] + step * slope[k];
    const Point<P> at(friction, there, stiffness);
    P inward = P(T(0)), square = P(T(0));
    for (int k = 0; k + 1 < Dim; ++k) {
      const P rate = at.weight[k] * slope[k + 1];
      inward += at.side[k] * rate;
      square += rate * rate;
    }
    const P inverse = T(1) / select(at.middle, at.across, T(1));
    const P middle = keep(at.middle, stiffness / (T(1) + at.mu * at.mu));
    const P bottom = keep(at.bottom, stiffness);
    const P turn = inward * inverse;  // rate of `across`
    const P gap = keep(at.middle, there[0] - at.mu * at.across);
    const P closing = slope[0] - at.mu * turn;
    const P bend = max(square - turn * turn, T(0)) * inverse;
    const std::uint32_t bottom_lanes = bits(at.bottom), middle_lanes = bits(at.middle);
    const std::uint32_t changed = record(zone[0], bottom_lanes) | record(zone[1], middle_lanes);
    return {
        bottom * (there[0] * slope[0] + inward) + middle * gap * closing,
        bottom * (slope[0] * slope[0] + square) + middle * (closing * closing - gap * at.mu * bend),
        changed | middle_lanes};
  }

  template <class P>
  SDPG_INLINE static void scale(const P* curvature, const P* v, P* out) {
    for (int k = 0; k < Dim; ++k) {
      out[k] = curvature[triangle(k, 0)] * v[0];
      for (int l = 1; l <= k; ++l) out[k] += curvature[triangle(k, l)] * v[l];
      for (int l = k + 1; l < Dim; ++l) out[k] += curvature[triangle(l, k)] * v[l];
    }
  }
};

// f(cone) with the cone of the pair's contacts.
template <class P, class Team, class F>
SDPG_INLINE void with_cone(const Scratch<P, Team>& s, const Pair& pair, const F& f) {
  if (pair.condim == 1) {
    f(Pyramid<1>{});
  } else if (!s.model.elliptic) {
    if (pair.condim == 3)
      f(Pyramid<3>{});
    else if (pair.condim == 4)
      f(Pyramid<4>{});
    else
      f(Pyramid<6>{});
  } else {
    if (pair.condim == 3)
      f(Ellipse<3>{});
    else if (pair.condim == 4)
      f(Ellipse<4>{});
    else
      f(Ellipse<6>{});
  }
}

SDPG_ISA_END
}  // namespace sdpg::core
