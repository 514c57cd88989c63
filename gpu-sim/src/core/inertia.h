// Stages `crb` and `factor`: the joint-space inertia matrix by the composite rigid body method, and
// the L' D L factorisation of sparse symmetric matrices. Eliminating degrees of freedom from the
// leaves to the root creates no new non-zeros in a tree (Featherstone, "Rigid Body Dynamics
// Algorithms", ch. 8).
#pragma once

#include "core/scratch.h"

namespace sdpg::core {
SDPG_ISA_BEGIN

template <class P, class Team>
SDPG_FN void crb(Scratch<P, Team>& s) {
  using T = typename P::Scalar;
  const Model& m = s.model;
  // From here on inertia[b] is that of the whole subtree; velocity-dependent terms came before.
  for (int b = m.nbody - 1; b > 0; --b) {
    const int parent = m.body_parent[b];
    if (parent == 0) continue;
    for (int i = 0; i < 10; ++i) s.inertia[10 * parent + i] += s.inertia[10 * b + i];
  }
  for (int i = 0; i < m.nv; ++i) {
    const P *motion = s.cdof + 6 * i, *composite = s.inertia + 10 * m.dof_bodyid[i];
    const Spatial<P> force = is_angular(m, i) ? apply_inertia(composite, load6(motion))
                                              : apply_inertia(composite, load3(motion + 3));
    const auto entry = [&](int j) {
      const P linear = dot(load3(s.cdof + 6 * j + 3), force.l);
      return is_angular(m, j) ? linear + dot(load3(s.cdof + 6 * j), force.r) : linear;
    };
    // + 0 makes every zero positive: adding an absent contact's zeros then changes no bit.
    s.mass[triangle(i, i)] = entry(i) + constant<P>(s.k.armature, i);
    for (int c = m.mass.begin[i]; c < m.mass.begin[i + 1]; ++c)
      s.mass[triangle(i, m.mass.col[c])] = entry(m.mass.col[c]) + T(0);
  }
}

// In place: a = L' D L with L below the diagonal and 1/D on it.
template <class P>
SDPG_FN void factor(const Pattern& pattern, int n, P* a) {
  using T = typename P::Scalar;
  for (int k = n - 1; k >= 0; --k) {
    P* row = a + triangle(k, 0);
    const P inverse = T(1) / row[k];
    row[k] = inverse;
    const int begin = pattern.begin[k];
    for (int c = pattern.begin[k + 1] - 1; c >= begin; --c) {
      const int i = pattern.col[c];
      P* target = a + triangle(i, 0);
      const P multiplier = row[i] * inverse;
      for (int d = begin; d <= c; ++d) {
        const int j = pattern.col[d];
        target[j] -= multiplier * row[j];
      }
      row[i] = multiplier;
    }
  }
}

// x := a^-1 x for a factored matrix.
template <class P>
SDPG_FN void solve_factored(const Pattern& pattern, int n, const P* a, P* x) {
  for (int k = n - 1; k >= 0; --k)
    for (int c = pattern.begin[k]; c < pattern.begin[k + 1]; ++c)
      x[pattern.col[c]] -= a[triangle(k, pattern.col[c])] * x[k];
  for (int k = 0; k < n; ++k) {
    P sum = x[k] * a[triangle(k, k)];
    for (int c = pattern.begin[k]; c < pattern.begin[k + 1]; ++c)
      sum -= a[triangle(k, pattern.col[c])] * x[pattern.col[c]];
    x[k] = sum;
  }
}

// out = a * x for a symmetric matrix of the pattern.
template <class P>
SDPG_FN void multiply(const Pattern& pattern, int n, const P* a, const P* x, P* out) {
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
}

SDPG_ISA_END
}  // namespace sdpg::core
