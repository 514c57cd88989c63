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
      return dot(load3(s.cdof + 6 * j + 3), force.l) + dot(load3(s.cdof + 6 * j), force.r);
    };
    // + 0 makes every zero positive: adding an absent contact's zeros then changes no bit.
    P* row = s.mass + triangle(i, 0);
    row[i] = entry(i) + parameter(s, Parameter::kDofArmature, i);
    // The translations of a free joint lie along the axes of the world.
    const P straight[3] = {force.l.x, force.l.y, force.l.z};
    const int* col = m.mass.col + m.mass.begin[i];
    const int count = m.mass.begin[i + 1] - m.mass.begin[i], lead = m.free_columns[i];
    for (int c = 0; c < lead; ++c) row[col[c]] = straight[c] + T(0);
    for (int c = lead; c < count; ++c) row[col[c]] = entry(col[c]) + T(0);
  });
}

// a = L' D L. `out` keeps D L below the diagonal and 1/D on it; it may be `a` itself.
template <class P, class Team>
SDPG_FN void factor(const Team& team, const Pattern& pattern, int n, const P* a, P* out) {
  using T = typename P::Scalar;
  if constexpr (Team::members == 1) {
    // Row by row from the leaves, each entry's sum in a register until it is complete.
    P scaled[kMaxDofs];
    for (int i = n - 1; i >= 0; --i) {
      const P* from = a + triangle(i, 0);
      P* row = out + triangle(i, 0);
      const int* below = pattern.below + pattern.below_begin[i];
      const int count = pattern.below_begin[i + 1] - pattern.below_begin[i];
      P pivot = from[i];
      for (int b = 0; b < count; ++b) {
        const P entry = out[triangle(below[b], i)];
        scaled[b] = entry * out[triangle(below[b], below[b])];
        pivot -= scaled[b] * entry;
      }
      row[i] = T(1) / pivot;
      int c = pattern.begin[i];
      const int end = pattern.begin[i + 1];
      for (; c + 4 <= end; c += 4) {
        const int j0 = pattern.col[c], j1 = pattern.col[c + 1], j2 = pattern.col[c + 2],
                  j3 = pattern.col[c + 3];
        P x0 = from[j0], x1 = from[j1], x2 = from[j2], x3 = from[j3];
        for (int b = 0; b < count; ++b) {
          const P *lower = out + triangle(below[b], 0), multiplier = scaled[b];
          x0 -= multiplier * lower[j0];
          x1 -= multiplier * lower[j1];
          x2 -= multiplier * lower[j2];
          x3 -= multiplier * lower[j3];
        }
        row[j0] = x0;
        row[j1] = x1;
        row[j2] = x2;
        row[j3] = x3;
      }
      for (; c < end; ++c) {
        const int j = pattern.col[c];
        P x = from[j];
        for (int b = 0; b < count; ++b) x -= scaled[b] * out[triangle(below[b], j)];
        row[j] = x;
      }
    }
  } else {
    if (out != a) team.each(0, triangle(n, 0), [&](int i) { out[i] = a[i]; });
    for (int k = n - 1; k >= 0; --k) {
      P* row = out + triangle(k, 0);
      const P inverse = T(1) / row[k];
      const int begin = pattern.begin[k], end = pattern.begin[k + 1];
      team.each(begin, end + 1, [&](int c) {
        if (c == end) {
          row[k] = inverse;
          return;
        }
        P* target = out + triangle(pattern.col[c], 0);
        const P multiplier = row[pattern.col[c]] * inverse;
        for (int d = begin; d <= c; ++d) target[pattern.col[d]] -= multiplier * row[pattern.col[d]];
      });
    }
  }
}

// x := a^-1 x for a factored matrix.
template <class P, class Team>
SDPG_FN void solve_factored(const Team& team, const Pattern& pattern, int n, const P* a, P* x) {
  using T = typename P::Scalar;
  if constexpr (Team::members == 1) {
    // Sums in two halves, and the number that was computed last comes last: fewer waits.
    for (int k = n - 1; k >= 0; --k) {
      P even = x[k], odd = P(T(0));
      const int begin = pattern.below_begin[k];
      int i = pattern.below_begin[k + 1] - 1;
      for (; i > begin; i -= 2) {
        even -= a[triangle(pattern.below[i], k)] * x[pattern.below[i]];
        odd += a[triangle(pattern.below[i - 1], k)] * x[pattern.below[i - 1]];
      }
      if (i == begin) even -= a[triangle(pattern.below[i], k)] * x[pattern.below[i]];
      x[k] = (even - odd) * a[triangle(k, k)];
    }
    for (int k = 0; k < n; ++k) {
      const P* row = a + triangle(k, 0);
      P even = P(T(0)), odd = P(T(0));
      int c = pattern.begin[k];
      const int end = pattern.begin[k + 1];
      for (; c + 1 < end; c += 2) {
        even += row[pattern.col[c]] * x[pattern.col[c]];
        odd += row[pattern.col[c + 1]] * x[pattern.col[c + 1]];
      }
      if (c < end) even += row[pattern.col[c]] * x[pattern.col[c]];
      x[k] -= (even + odd) * row[k];
    }
  } else {
    for (int k = n - 1; k >= 0; --k) {
      const P scaled = x[k] * a[triangle(k, k)];
      const P* row = a + triangle(k, 0);
      team.each(pattern.begin[k], pattern.begin[k + 1],
                [&](int c) { x[pattern.col[c]] -= row[pattern.col[c]] * scaled; });
    }
    for (int k = 0; k < n; ++k) {
      const P solved = x[k] * a[triangle(k, k)];
      const int end = pattern.below_begin[k + 1];
      team.each(pattern.below_begin[k], end + 1, [&](int i) {
        if (i == end)
          x[k] = solved;
        else
          x[pattern.below[i]] -= a[triangle(pattern.below[i], k)] * solved;
      });
    }
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
