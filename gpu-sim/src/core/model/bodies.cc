// Bodies: the tree, masses, and inertias split into the form the kernels use.
#include <algorithm>
#include <cmath>

#include "core/model/builder.h"

namespace sdpg::core {

void Builder::bodies() {
  const pb::Bodies& b = in.bodies();
  expect_size(b.parentid(), nbody, 1, "bodies.parentid");
  expect_size(b.rootid(), nbody, 1, "bodies.rootid");
  expect_size(b.weldid(), nbody, 1, "bodies.weldid");
  expect_size(b.jntnum(), nbody, 1, "bodies.jntnum");
  expect_size(b.jntadr(), nbody, 1, "bodies.jntadr");
  expect_size(b.dofnum(), nbody, 1, "bodies.dofnum");
  expect_size(b.dofadr(), nbody, 1, "bodies.dofadr");
  expect_size(b.geomnum(), nbody, 1, "bodies.geomnum");
  expect_size(b.geomadr(), nbody, 1, "bodies.geomadr");
  std::vector<int> parent(nbody), first_joint(nbody + 1), first_dof(nbody + 1);
  body_root.assign(nbody, 0);
  body_weld.assign(nbody, 0);
  int next = 0, next_dof = 0;
  for (int i = 0; i < nbody; ++i) {
    parent[i] = b.parentid(i);
    if (i == 0 ? parent[i] != 0 : (parent[i] < 0 || parent[i] >= i))
      refuse(body(i) + ": expected a parent that comes before it, got " +
             std::to_string(parent[i]));
    body_root[i] = i == 0 ? 0 : parent[i] == 0 ? i : body_root[parent[i]];
    const int joints = b.jntnum(i);
    if (joints < 0 || joints > njnt - next || (i == 0 && joints != 0))
      refuse(body(i) + ": jntnum " + std::to_string(joints) + " does not fit " +
             std::to_string(njnt) + " joints");
    int dofs = 0;
    for (int j = next; j < next + joints; ++j) {
      dofs += dof_count(joint_type[j]);
      if (joint_type[j] == JointType::kFree && (joints > 1 || parent[i] != 0))
        refuse(joint(j) + ": a free joint must be the only one of a body of the world");
    }
    if ((joints > 0 && b.jntadr(i) != next) || b.dofnum(i) != dofs ||
        (joints > 0 && b.dofadr(i) != next_dof))
      refuse(body(i) + ": its joints and degrees of freedom are not numbered body by body");
    first_joint[i] = next;
    first_dof[i] = next_dof;
    next += joints;
    next_dof += dofs;
    body_weld[i] = i == 0 || joints > 0 ? i : body_weld[parent[i]];
    if (b.rootid(i) != body_root[i] || b.weldid(i) != body_weld[i])
      refuse(body(i) + ": rootid or weldid contradicts its parent; compile the model again");
  }
  first_joint[nbody] = next;
  first_dof[nbody] = next_dof;
  if (next != njnt)
    refuse("model: bodies own " + std::to_string(next) + " joints of " + std::to_string(njnt));

  const std::vector<double> pos = reals(b.pos(), nbody, 3, "bodies.pos");
  std::vector<double> quat = reals(b.quat(), nbody, 4, "bodies.quat");
  const std::vector<double> ipos = reals(b.ipos(), nbody, 3, "bodies.ipos");
  std::vector<double> iquat = reals(b.iquat(), nbody, 4, "bodies.iquat");
  const std::vector<double> mass = reals(b.mass(), nbody, 1, "bodies.mass");
  const std::vector<double> inertia = reals(b.inertia(), nbody, 3, "bodies.inertia");
  const std::vector<double> gravcomp = reals(b.gravcomp(), nbody, 1, "bodies.gravcomp");
  reals(b.invweight0(), nbody, 2, "bodies.invweight0");
  std::vector<double> carried(nbody, 0.0), base(nbody), weight(nbody * 2), axis(nbody * 6);
  std::vector<std::uint8_t> turned(nbody), axes(nbody), inertia_varies(nbody);
  for (int i = 0; i < nbody; ++i) {
    normalize(&quat[4 * i], 4, body(i) + ": quat");
    normalize(&iquat[4 * i], 4, body(i) + ": iquat");
    turned[i] = !(quat[4 * i] == 1);
    if (mass[i] < 0) refuse(body(i) + ": expected mass at least 0 kg, got " + number(mass[i]));
    const double* I = &inertia[3 * i];
    for (int k = 0; k < 3; ++k)
      if (I[k] < 0) refuse(body(i) + ": expected inertia at least 0, got " + number(I[k]));
    // MuJoCo leaves out all passive forces together where springs and dampers are both disabled.
    const bool passive = !(disabled & kNoSpring && disabled & kNoDamper);
    if (gravcomp[i] != 0 && passive && !(disabled & kNoGravity)) out->has_gravcomp = true;
    if (b.invweight0(2 * i) < 0 || b.invweight0(2 * i + 1) < 0)
      refuse(body(i) + ": invweight0 is negative");
    carried[body_weld[i]] += mass[i];

    // base * 1 plus at most two rank-one terms; bodies of revolution need one, spheres none.
    double columns[3][3];
    rotation_columns(&iquat[4 * i], columns);
    const double same = 1e-14 * std::max({I[0], I[1], I[2]});
    int odd = -1;  // axis of revolution
    for (int k = 0; k < 3; ++k) inertia_varies[i] |= varies(Parameter::kBodyInertia, 3 * i + k);
    for (int k = 0; k < 3 && !inertia_varies[i]; ++k)
      if (std::abs(I[(k + 1) % 3] - I[(k + 2) % 3]) <= same) odd = k;
    base[i] = odd < 0 ? I[2] : I[(odd + 1) % 3];
    const int terms[2] = {odd < 0 ? 0 : odd, 1};
    axes[i] = odd < 0 ? 2 : std::abs(I[odd] - base[i]) <= same ? 0 : 1;
    for (int t = 0; t < axes[i]; ++t) {
      weight[2 * i + t] = I[terms[t]] - base[i];
      for (int k = 0; k < 3; ++k) axis[3 * (2 * i + t) + k] = columns[terms[t]][k];
    }
  }
  for (int i = 1; i < nbody; ++i)
    if (body_weld[i] == i && carried[i] < kTiny)
      refuse(body(i) + ": moves but has no mass; give it or a body fixed to it a geom with mass");

  out->body_parent = out->own(parent);
  out->body_root = out->own(body_root);
  out->body_jnt = out->own(first_joint);
  out->body_dof = out->own(first_dof);
  out->body_turned = out->own(turned);
  out->inertia_axes = out->own(axes);
  out->body_inertia_varies = out->own(inertia_varies);
  out->own(&Constants<float>::body_inertia, &Constants<double>::body_inertia, inertia);
  out->own(&Constants<float>::gravcomp, &Constants<double>::gravcomp, gravcomp);
  out->own(&Constants<float>::body_pos, &Constants<double>::body_pos, pos);
  out->own(&Constants<float>::body_quat, &Constants<double>::body_quat, quat);
  out->own(&Constants<float>::body_ipos, &Constants<double>::body_ipos, ipos);
  out->own(&Constants<float>::body_mass, &Constants<double>::body_mass, mass);
  out->own(&Constants<float>::inertia_base, &Constants<double>::inertia_base, base);
  out->own(&Constants<float>::inertia_weight, &Constants<double>::inertia_weight, weight);
  out->own(&Constants<float>::inertia_axis, &Constants<double>::inertia_axis, axis);

  chain.assign(nbody, {});
  for (int i = 1; i < nbody; ++i) {
    chain[i] = chain[parent[i]];
    for (int d = first_dof[i]; d < first_dof[i + 1]; ++d) chain[i].push_back(d);
  }
}

// Levels and children, by which recursions over the tree run.
void Builder::tree() {
  std::vector<int> depth(nbody, -1), level_begin{0}, level_body, child_begin{0}, child;
  for (int b = 1; b < nbody; ++b) depth[b] = depth[out->body_parent[b]] + 1;
  for (int level = 0; static_cast<int>(level_body.size()) < nbody - 1; ++level) {
    for (int b = 1; b < nbody; ++b)
      if (depth[b] == level) level_body.push_back(b);
    level_begin.push_back(static_cast<int>(level_body.size()));
  }
  for (int b = 0; b < nbody; ++b) {
    for (int c = b + 1; c < nbody; ++c)
      if (out->body_parent[c] == b) child.push_back(c);
    child_begin.push_back(static_cast<int>(child.size()));
  }
  out->nlevel = static_cast<int>(level_begin.size()) - 1;
  out->level_begin = out->own(level_begin);
  out->level_body = out->own(level_body);
  out->child_begin = out->own(child_begin);
  out->child = out->own(child);
}

}  // namespace sdpg::core
