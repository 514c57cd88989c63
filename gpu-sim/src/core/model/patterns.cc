// Which entries of the inertia matrix and of the Hessian can differ from zero.
#include <set>

#include "core/model/builder.h"

namespace sdpg::core {

void Builder::patterns() {
  std::vector<std::set<int>> rows(nv);
  for (int i = 0; i < nv; ++i)
    for (const int j : chain[out->dof_bodyid[i]])
      if (j < i) rows[i].insert(j);
  out->mass = pattern(rows);
  std::vector<std::uint8_t> free_columns(nv);
  for (int i = 0; i < nv; ++i)
    for (const int j : rows[i])
      free_columns[i] += joint_type[out->dof_jntid[j]] == JointType::kFree && !out->dof_angular[j];
  out->free_columns = out->own(free_columns);
  for (int p = 0; p < out->npair; ++p)
    for (int a = 0; a < out->pair[p].dof_count; ++a)
      for (int b = 0; b < a; ++b)
        rows[out->pair_dof[out->pair[p].dof_begin + a]].insert(
            out->pair_dof[out->pair[p].dof_begin + b]);
  // Eliminating row k couples all its columns with each other.
  for (int k = nv - 1; k >= 0; --k)
    for (const int i : rows[k])
      for (const int j : rows[k])
        if (j < i) rows[i].insert(j);
  out->hessian = pattern(rows);
}

Pattern Builder::pattern(const std::vector<std::set<int>>& rows) {
  std::vector<int> begin, col;
  for (const std::set<int>& row : rows) {
    begin.push_back(static_cast<int>(col.size()));
    col.insert(col.end(), row.begin(), row.end());
  }
  begin.push_back(static_cast<int>(col.size()));
  std::vector<int> below_begin{0}, below;
  for (int j = 0; j < nv; ++j) {
    for (int i = j + 1; i < nv; ++i)
      if (rows[i].count(j)) below.push_back(i);
    below_begin.push_back(static_cast<int>(below.size()));
  }
  return {out->own(begin), out->own(col), out->own(below_begin), out->own(below)};
}

}  // namespace sdpg::core
