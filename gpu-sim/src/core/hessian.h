// The Hessian of the solver's cost, H = M + J' C J, its factorisation and the products with J' that
// several contacts add to. A degree of freedom is moved by many contacts, so these sums are written
// twice: one member goes through the contacts and adds to what each moves (CPU), or each member
// owns degrees of freedom and gathers from the contacts (CUDA). Both add the contacts in the same
// order.
#pragma once

#include "core/constraint.h"
#include "core/scratch.h"

namespace sdpg::core {
SDPG_ISA_BEGIN

// Contacts that push in some of the lanes.
template <class P>
SDPG_INLINE bool pushes_in(const Contact<P>& contact, int zones, std::uint32_t lanes) {
  std::uint32_t pushing = 0;
  for (int z = 0; z < zones; ++z) pushing |= contact.zones[z];
  return (pushing & lanes) != 0;
}

// qfrc_constraint: the forces of all rows on the degrees of freedom, complete in `lanes`.
template <class P, class Team>
SDPG_FN void gather_forces(Scratch<P, Team>& s, std::uint32_t lanes, P* out) {
  using T = typename P::Scalar;
  const Model& m = s.model;
  if constexpr (Team::members == 1) {
    for (int i = 0; i < m.nv; ++i) out[i] = P(T(0));
    for (int c = 0; c < s.contact_count; ++c) {
      const Contact<P>& contact = s.contacts[c];
      const Pair& pair = m.pair[contact.pair];
      with_cone(s, pair, [&](auto cone) {
        constexpr int dim = decltype(cone)::dim;
        if (!pushes_in(contact, decltype(cone)::zones, lanes)) return;
        const P *jacobian = s.jacobian(c), *stored = s.force(c);
        const int* dofs = m.pair_dof + pair.dof_begin;
        P force[dim];
        for (int k = 0; k < dim; ++k) force[k] = stored[k];
        for (int i = 0; i < pair.dof_count; ++i) {
          P total = out[dofs[i]];
          for (int k = 0; k < dim; ++k) total += jacobian[i * dim + k] * force[k];
          out[dofs[i]] = total;
        }
      });
    }
    for (int l = 0; l < s.limit_count; ++l) {
      const Limit<P>& limit = s.limits[l];
      for (int k = 0; k < limit.dofs; ++k) out[limit.dof + k] += limit.force * limit.axis[k];
    }
    for (int i = 0; i < m.nloss; ++i) out[m.loss_dof[i]] += s.losses[i].force;
  } else {
    s.team.each(0, m.nv, [&](int i) {
      P total = P(T(0));
      for (int c = 0; c < s.contact_count; ++c) {
        const Pair& pair = m.pair[s.contacts[c].pair];
        const int place = m.chain_place[pair.chain * m.nv + i];
        if (place < 0) continue;
        const P *row = s.jacobian(c) + place * pair.condim, *force = s.force(c);
        for (int k = 0; k < pair.condim; ++k) total += row[k] * force[k];
      }
      for (int l = 0; l < s.limit_count; ++l) {
        const Limit<P>& limit = s.limits[l];
        if (i >= limit.dof && i < limit.dof + limit.dofs)
          total += limit.force * limit.axis[i - limit.dof];
      }
      for (int k = 0; k < m.nloss; ++k)
        if (m.loss_dof[k] == i) total += s.losses[k].force;
      out[i] = total;
    });
  }
}

// Adds J' C J of one contact to rows of H, two at a time, so that what is read serves twice.
template <class Cone, class P>
SDPG_FN void add_contact(const int* dofs, int count, const P* jacobian, const P* stored,
                         P* hessian) {
  constexpr int dim = Cone::dim;
  P curvature[dim * (dim + 1) / 2];
  for (int k = 0; k < dim * (dim + 1) / 2; ++k) curvature[k] = stored[k];
  int a = 0;
  for (; a + 1 < count; a += 2) {
    P low[dim], high[dim];
    Cone::scale(curvature, jacobian + a * dim, low);
    Cone::scale(curvature, jacobian + (a + 1) * dim, high);
    P *low_row = hessian + triangle(dofs[a], 0), *high_row = hessian + triangle(dofs[a + 1], 0);
    for (int b = 0; b <= a; ++b) {
      const P* other = jacobian + b * dim;
      P low_sum = low_row[dofs[b]], high_sum = high_row[dofs[b]];
      for (int k = 0; k < dim; ++k) {
        low_sum += low[k] * other[k];
        high_sum += high[k] * other[k];
      }
      low_row[dofs[b]] = low_sum;
      high_row[dofs[b]] = high_sum;
    }
    P sum = high_row[dofs[a + 1]];
    for (int k = 0; k < dim; ++k) sum += high[k] * jacobian[(a + 1) * dim + k];
    high_row[dofs[a + 1]] = sum;
  }
  if (a == count) return;
  P scaled[dim], *row = hessian + triangle(dofs[a], 0);
  Cone::scale(curvature, jacobian + a * dim, scaled);
  for (int b = 0; b <= a; ++b) {
    P sum = row[dofs[b]];
    for (int k = 0; k < dim; ++k) sum += scaled[k] * jacobian[b * dim + k];
    row[dofs[b]] = sum;
  }
}

// Row i of M in the Hessian's pattern.
template <class P>
SDPG_INLINE void start_row(const Model& m, const P* mass, int i, P* hessian) {
  using T = typename P::Scalar;
  P* row = hessian + triangle(i, 0);
  const P* from = mass + triangle(i, 0);
  for (int c = m.hessian.begin[i]; c < m.hessian.begin[i + 1]; ++c) row[m.hessian.col[c]] = P(T(0));
  for (int c = m.mass.begin[i]; c < m.mass.begin[i + 1]; ++c)
    row[m.mass.col[c]] = from[m.mass.col[c]];
  row[i] = from[i];
}

// H, complete in `lanes`.
template <class P, class Team>
SDPG_FN void build_hessian(Scratch<P, Team>& s, std::uint32_t lanes) {
  const Model& m = s.model;
  if constexpr (Team::members == 1) {
    for (int i = 0; i < m.nv; ++i) start_row(m, s.mass, i, s.hessian);
    for (int c = 0; c < s.contact_count; ++c) {
      const Contact<P>& contact = s.contacts[c];
      const Pair& pair = m.pair[contact.pair];
      with_cone(s, pair, [&](auto cone) {
        using Cone = decltype(cone);
        if (pushes_in(contact, Cone::zones, lanes))
          add_contact<Cone>(m.pair_dof + pair.dof_begin, pair.dof_count, s.jacobian(c),
                            s.curvature(c), s.hessian);
      });
    }
    for (int l = 0; l < s.limit_count; ++l) {
      const Limit<P>& limit = s.limits[l];
      for (int a = 0; a < limit.dofs; ++a)
        for (int b = 0; b <= a; ++b)
          s.hessian[triangle(limit.dof + a, limit.dof + b)] +=
              limit.curvature * limit.axis[a] * limit.axis[b];
    }
    for (int i = 0; i < m.nloss; ++i)
      s.hessian[triangle(m.loss_dof[i], m.loss_dof[i])] += s.losses[i].curvature;
  } else {
    s.team.each(0, m.nv, [&](int i) {
      start_row(m, s.mass, i, s.hessian);
      P* row = s.hessian + triangle(i, 0);
      for (int c = 0; c < s.contact_count; ++c) {
        const Contact<P>& contact = s.contacts[c];
        const Pair& pair = m.pair[contact.pair];
        const int place = m.chain_place[pair.chain * m.nv + i];
        if (place < 0) continue;
        with_cone(s, pair, [&](auto cone) {
          using Cone = decltype(cone);
          constexpr int dim = Cone::dim;
          if (!pushes_in(contact, Cone::zones, lanes)) return;
          const P* jacobian = s.jacobian(c);
          const int* dofs = m.pair_dof + pair.dof_begin;
          P scaled[dim];
          Cone::scale(s.curvature(c), jacobian + place * dim, scaled);
          for (int b = 0; b <= place; ++b) {
            P sum = row[dofs[b]];
            for (int k = 0; k < dim; ++k) sum += scaled[k] * jacobian[b * dim + k];
            row[dofs[b]] = sum;
          }
        });
      }
      for (int l = 0; l < s.limit_count; ++l) {
        const Limit<P>& limit = s.limits[l];
        const int a = i - limit.dof;
        if (a < 0 || a >= limit.dofs) continue;
        for (int b = 0; b <= a; ++b)
          row[limit.dof + b] += limit.curvature * limit.axis[a] * limit.axis[b];
      }
      for (int k = 0; k < m.nloss; ++k)
        if (m.loss_dof[k] == i) row[i] += s.losses[k].curvature;
    });
  }
}

// Subtracts from row i, up to the diagonal, what eliminating rows k (and k + 1, if `two`) leaves:
// multiplier times the row, at the first `count` columns of the pattern.
template <bool two, class P>
SDPG_INLINE void eliminate_row(const int* col, int count, const P* upper, P upper_factor,
                               const P* lower, P lower_factor, P* target) {
  for (int d = 0; d < count; ++d) {
    P value = target[col[d]];
    if constexpr (two) value -= upper_factor * upper[col[d]];
    target[col[d]] = value - lower_factor * lower[col[d]];
  }
}

// In place: H = L' D L from the last row to the first; rows of D L below the diagonal, 1/D on it.
template <class P, class Team>
SDPG_FN void factor_hessian(Scratch<P, Team>& s) {
  using T = typename P::Scalar;
  const Pattern& pattern = s.model.hessian;
  P* h = s.hessian;
  if constexpr (Team::members == 1) {
    for (int k = s.model.nv - 1; k >= 0; --k) {
      P* upper = h + triangle(k, 0);
      const P upper_inverse = T(1) / upper[k];
      upper[k] = upper_inverse;
      const int* col = pattern.col + pattern.begin[k];
      int count = pattern.begin[k + 1] - pattern.begin[k];
      // Where the row before has the same columns, both are eliminated at once.
      const bool two = count > 0 && col[count - 1] == k - 1 &&
                       pattern.begin[k] - pattern.begin[k - 1] == count - 1;
      if (!two) {
        for (int c = 0; c < count; ++c)
          eliminate_row<false>(col, c + 1, upper, P(T(0)), upper, upper[col[c]] * upper_inverse,
                               h + triangle(col[c], 0));
        continue;
      }
      --k;
      --count;
      P* lower = h + triangle(k, 0);
      const P between = upper[k] * upper_inverse;
      for (int d = 0; d < count; ++d) lower[col[d]] -= between * upper[col[d]];
      const P lower_inverse = T(1) / (lower[k] - between * upper[k]);
      lower[k] = lower_inverse;
      int c = 0;
      for (; c + 1 < count; c += 2) {  // two targets share what is read
        const int i = col[c], j = col[c + 1];
        P *first = h + triangle(i, 0), *second = h + triangle(j, 0);
        const P u1 = upper[i] * upper_inverse, l1 = lower[i] * lower_inverse;
        const P u2 = upper[j] * upper_inverse, l2 = lower[j] * lower_inverse;
        for (int d = 0; d <= c; ++d) {
          const P up = upper[col[d]], low = lower[col[d]];
          first[col[d]] = first[col[d]] - u1 * up - l1 * low;
          second[col[d]] = second[col[d]] - u2 * up - l2 * low;
        }
        second[j] = second[j] - u2 * upper[j] - l2 * lower[j];
      }
      if (c < count)
        eliminate_row<true>(col, count, upper, upper[col[c]] * upper_inverse, lower,
                            lower[col[c]] * lower_inverse, h + triangle(col[c], 0));
    }
  } else {
    for (int k = s.model.nv - 1; k >= 0; --k) {
      P* row = h + triangle(k, 0);
      const P inverse = T(1) / row[k];
      const int* col = pattern.col + pattern.begin[k];
      const int count = pattern.begin[k + 1] - pattern.begin[k];
      s.team.each(0, count, [&](int c) {
        eliminate_row<false>(col, c + 1, row, P(T(0)), row, row[col[c]] * inverse,
                             h + triangle(col[c], 0));
      });
      s.team.once([&] { row[k] = inverse; });
    }
  }
}

// x := H^-1 x with the factors.
template <class P, class Team>
SDPG_FN void solve_hessian(Scratch<P, Team>& s, P* x) {
  using T = typename P::Scalar;
  const Model& m = s.model;
  const Pattern& pattern = m.hessian;
  const P* h = s.hessian;
  if constexpr (Team::members == 1) {
    for (int k = m.nv - 1; k >= 0; --k) {
      const P* row = h + triangle(k, 0);
      const P value = x[k] * row[k];
      for (int c = pattern.begin[k]; c < pattern.begin[k + 1]; ++c)
        x[pattern.col[c]] -= row[pattern.col[c]] * value;
    }
    for (int k = 0; k < m.nv; ++k) {
      const P* row = h + triangle(k, 0);
      P even = x[k], odd = P(T(0));  // two sums: half the latency
      int c = pattern.begin[k];
      for (; c + 1 < pattern.begin[k + 1]; c += 2) {
        even -= row[pattern.col[c]] * x[pattern.col[c]];
        odd -= row[pattern.col[c + 1]] * x[pattern.col[c + 1]];
      }
      if (c < pattern.begin[k + 1]) even -= row[pattern.col[c]] * x[pattern.col[c]];
      x[k] = (even + odd) * row[k];
    }
  } else {
    for (int k = m.nv - 1; k >= 0; --k) {
      const P* row = h + triangle(k, 0);
      const P value = x[k] * row[k];
      const int begin = pattern.begin[k];
      s.team.each(begin, pattern.begin[k + 1],
                  [&](int c) { x[pattern.col[c]] -= row[pattern.col[c]] * value; });
    }
    for (int k = 0; k < m.nv; ++k) {
      const P* row = h + triangle(k, 0);
      const P sum = s.team.template sum<P>(pattern.begin[k], pattern.begin[k + 1], [&](int c) {
        return row[pattern.col[c]] * x[pattern.col[c]];
      });
      const P value = (x[k] - sum) * row[k];
      s.team.once([&] { x[k] = value; });
    }
  }
}

SDPG_ISA_END
}  // namespace sdpg::core
