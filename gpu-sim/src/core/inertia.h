// Stages `crb` and `factor`: the joint-space inertia matrix by the composite rigid body method, and
// the L' D L factorisation of sparse symmetric matrices. Eliminating degrees of freedom from the
// leaves to the root creates no new non-zeros in a tree (Featherstone, "Rigid Body Dynamics
// Algorithms", ch. 8).
//
// Loops over the entries of a row run in sequence for one member and as parts of the row for a
// team; where the two differ, both forms stand side by side.
#pragma once

#include "core/parameter.h"
#include "core/scratch.h"

namespace sdpg::core {
SDPG_ISA_BEGIN

// Adds to each body's N numbers those of all bodies it carries.
template <int N, class P, class Team>
SDPG_FN void sum_subtrees(Scratch<P, Team>& s, P* numbers) {
  const Model& m = s.model;
  // The deepest level carries nothing.
  for (int level = m.nlevel - 2; level >= 0; --level)
    s.team.each(m.level_begin[level], m.level_begin[level + 1], [&](int i) {
      const int b = m.level_body[i];
      for (int c = m.child_begin[b]; c < m.child_begin[b + 1]; ++c)
        for (int n = 0; n < N; ++n) numbers[N * b + n] += numbers[N * m.child[c] + n];
    });
}

template <class P, class Team>
SDPG_FN void crb(Scratch<P, Team>& s) {
  using T = typename P::Scalar;
  const Model& m = s.model;
  // From here on inertia[b] is that of the whole subtree; velocity-dependent terms came before.
  sum_subtrees<10>(s, s.inertia);
  s.team.each(0, m.nv, [&](int i) {
    const P *motion = s.cdof + 6 * i, *composite = s.inertia + 10 * m.dof_bodyid[i];
    const Spatial<P> force = is_angular(m, i) ? apply_inertia(composite, load6(motion))
                                              : apply_inertia(composite, load3(motion + 3));
    const auto entry = [&](int j) {
      const P linear = dot(load3(s.cdof + 6 * j + 3), force.l);
      return is_angular(m, j) ? linear + dot(load3(s.cdof + 6 * j), force.r) : linear;
    };
    // + 0 makes every zero positive: adding an absent contact's zeros then changes no bit.
    P* row = s.mass + triangle(i, 0);
    row[i] = entry(i) + parameter(s, Parameter::kDofArmature, i);
    for (int c = m.mass.begin[i]; c < m.mass.begin[i + 1]; ++c)
      row[m.mass.col[c]] = entry(m.mass.col[c]) + T(0);
  });
}

// In place: a = L' D L with L below the diagonal and 1/D on it.
template <class P, class Team>
SDPG_FN void factor(const Team& team, const Pattern& pattern, int n, P* a) {
  using T = typename P::Scalar;
  for (int k = n - 1; k >= 0; --k) {
    P* row = a + triangle(k, 0);
    const P inverse = T(1) / row[k];
    const int begin = pattern.begin[k], end = pattern.begin[k + 1];
    const auto eliminate = [&](int c, P multiplier) {
      P* target = a + triangle(pattern.col[c], 0);
      for (int d = begin; d <= c; ++d) {
        const int j = pattern.col[d];
        target[j] -= multiplier * row[j];
      }
    };
    if constexpr (Team::members == 1) {
      row[k] = inverse;
      // Descending: eliminating a column reads those before it, not yet divided.
      for (int c = end - 1; c >= begin; --c) {
        P& entry = row[pattern.col[c]];
        const P multiplier = entry * inverse;
        eliminate(c, multiplier);
        entry = multiplier;
      }
    } else {
      team.each(begin, end, [&](int c) { eliminate(c, row[pattern.col[c]] * inverse); });
      team.each(begin, end + 1, [&](int c) {
        if (c == end)
          row[k] = inverse;
        else
          row[pattern.col[c]] = row[pattern.col[c]] * inverse;
      });
    }
  }
}

// x := a^-1 x for a factored matrix.
template <class P, class Team>
SDPG_FN void solve_factored(const Team& team, const Pattern& pattern, int n, const P* a, P* x) {
  for (int k = n - 1; k >= 0; --k)
    team.each(pattern.begin[k], pattern.begin[k + 1],
              [&](int c) { x[pattern.col[c]] -= a[triangle(k, pattern.col[c])] * x[k]; });
  if constexpr (Team::members == 1) {
    for (int k = 0; k < n; ++k) {
      P sum = x[k] * a[triangle(k, k)];
      for (int c = pattern.begin[k]; c < pattern.begin[k + 1]; ++c)
        sum -= a[triangle(k, pattern.col[c])] * x[pattern.col[c]];
      x[k] = sum;
    }
  } else {
    team.each(0, n, [&](int k) { x[k] = x[k] * a[triangle(k, k)]; });
    for (int k = 0; k < n; ++k)
      team.each(pattern.below_begin[k], pattern.below_begin[k + 1],
                [&](int i) { x[pattern.below[i]] -= a[triangle(pattern.below[i], k)] * x[k]; });
  }
}

// out = a * x for a symmetric matrix of the pattern.
template <class P, class Team>
SDPG_FN void multiply(const Team& team, const Pattern& pattern, int n, const P* a, const P* x,
                      P* out) {
  if constexpr (Team::members == 1) {
    for (int k = 0; k < n; ++k) {
      P sum = a[triangle(k, k)] * x[k];
      for (int c = pattern.begin[k]; c < pattern.begin[k + 1]; ++c) {
        const int j = pattern.col[c];
        const P value = a[triangle(k, j)];
        sum += value * x[j];
        out[j] += value * x[k];
      }
      out[k] = sum;
    }
  } else {
    team.each(0, n, [&](int k) {
      P sum = a[triangle(k, k)] * x[k];
      for (int c = pattern.begin[k]; c < pattern.begin[k + 1]; ++c)
        sum += a[triangle(k, pattern.col[c])] * x[pattern.col[c]];
      for (int i = pattern.below_begin[k]; i < pattern.below_begin[k + 1]; ++i)
        sum += a[triangle(pattern.below[i], k)] * x[pattern.below[i]];
      out[k] = sum;
    });
  }
}

SDPG_ISA_END
}  // namespace sdpg::core
