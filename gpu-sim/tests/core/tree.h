// Compiled models made by a test itself: trees of bodies without geoms, with joints of every type.
#pragma once

#include <cmath>
#include <random>
#include <string>

#include "sdpg/model/v1/model.pb.h"

namespace sdpg::testing {

enum TestJoint { kFreeJoint = 0, kBallJoint = 1, kSlideJoint = 2, kHingeJoint = 3 };

// Adds to a message body by body; bodies must be added in depth-first order.
class Tree {
 public:
  explicit Tree(std::uint64_t seed) : random_(seed) {
    auto* o = message.mutable_option();
    o->set_timestep(0.002);
    for (const double g : {0.0, 0.0, -9.81}) o->add_gravity(g);
    o->set_solver(2);
    o->set_iterations(100);
    o->set_ls_iterations(50);
    o->set_impratio(1);
    message.set_stat_meaninertia(1);
    add_body("world", 0);
  }
  model::v1::Model message;

  // A body with mass and a turned inertial frame, somewhere beside its parent. Returns its index.
  int add_body(const std::string& name, int parent) {
    auto* b = message.mutable_bodies();
    const int i = b->name_size();
    const bool world = i == 0;
    b->add_name(name);
    b->add_parentid(parent);
    b->add_rootid(world ? 0 : parent == 0 ? i : b->rootid(parent));
    b->add_weldid(world ? 0 : b->weldid(parent));
    b->add_jntnum(0);
    b->add_jntadr(-1);
    b->add_dofnum(0);
    b->add_dofadr(-1);
    b->add_geomnum(0);
    b->add_geomadr(-1);
    add_vector(b->mutable_pos(), world ? 0 : 0.4);
    add_quaternion(b->mutable_quat(), !world);
    add_vector(b->mutable_ipos(), world ? 0 : 0.1);
    add_quaternion(b->mutable_iquat(), !world);
    b->add_mass(world ? 0 : 1 + 0.5 * one());
    for (int k = 0; k < 3; ++k) b->add_inertia(world ? 0 : 0.05 + 0.01 * k + 0.004 * one());
    b->add_invweight0(1);
    b->add_invweight0(1);
    b->add_gravcomp(0);
    return i;
  }

  // A joint of the newest body. Returns its index.
  int add_joint(TestJoint type) {
    auto* b = message.mutable_bodies();
    auto* j = message.mutable_joints();
    auto* d = message.mutable_dofs();
    const int body = b->name_size() - 1, i = j->type_size();
    const int dofs = type == kFreeJoint ? 6 : type == kBallJoint ? 3 : 1;
    if (b->jntnum(body) == 0) {
      b->set_jntadr(body, i);
      b->set_dofadr(body, d->bodyid_size());
    }
    b->set_jntnum(body, b->jntnum(body) + 1);
    b->set_weldid(body, body);
    j->add_name("joint" + std::to_string(i));
    j->add_type(type);
    j->add_qposadr(message.qpos0_size());
    j->add_dofadr(d->bodyid_size());
    j->add_bodyid(body);
    add_vector(j->mutable_pos(), 0.1);
    double axis[3], square = 0;
    for (double& x : axis) {
      x = one() + 0.1;
      square += x * x;
    }
    for (const double x : axis) j->add_axis(x / std::sqrt(square));
    j->add_limited(0);
    for (int k = 0; k < 2; ++k) j->add_range(0);
    j->add_margin(0);
    add_softness(j);
    j->add_stiffness(0);
    for (int k = 0; k < dofs; ++k) {
      d->add_parentid(b->dofnum(body) > 0 ? d->bodyid_size() - 1 : last_dof(b->parentid(body)));
      b->set_dofnum(body, b->dofnum(body) + 1);
      d->add_bodyid(body);
      d->add_jntid(i);
      d->add_armature(0);
      d->add_damping(0);
      d->add_frictionloss(0);
      add_softness(d);
      d->add_invweight0(1);
    }
    for (auto* qpos : {message.mutable_qpos0(), message.mutable_qpos_spring()}) {
      if (type == kFreeJoint)
        for (int k = 0; k < 3; ++k) qpos->Add(0);
      if (type == kFreeJoint || type == kBallJoint)
        for (int k = 0; k < 4; ++k) qpos->Add(k == 0);
      else
        qpos->Add(0);
    }
    return i;
  }

  // A motor of gear 1, to be changed by the test. Returns its index.
  int add_actuator(int joint) {
    auto* a = message.mutable_actuators();
    const int i = a->name_size();
    a->add_name("actuator" + std::to_string(i));
    a->add_trntype(0);
    a->add_trnid(joint);
    for (int k = 0; k < 6; ++k) a->add_gear(k == 0);
    for (auto* field : {a->mutable_ctrllimited(), a->mutable_forcelimited(), a->mutable_dyntype(),
                        a->mutable_gaintype(), a->mutable_biastype(), a->mutable_actnum(),
                        a->mutable_actlimited(), a->mutable_actearly()})
      field->Add(0);
    a->add_actadr(-1);
    for (auto* field : {a->mutable_ctrlrange(), a->mutable_forcerange(), a->mutable_actrange()})
      for (int k = 0; k < 2; ++k) field->Add(0);
    for (int k = 0; k < 10; ++k) {
      a->add_dynprm(0);
      a->add_gainprm(k == 0);
      a->add_biasprm(0);
    }
    return i;
  }

  double one() { return std::uniform_real_distribution<double>(-1, 1)(random_); }

 private:
  int last_dof(int body) const {
    const auto& b = message.bodies();
    for (; body > 0; body = b.parentid(body))
      if (b.dofnum(body) > 0) return b.dofadr(body) + b.dofnum(body) - 1;
    return -1;
  }
  template <class Field>
  void add_vector(Field* field, double scale) {
    for (int k = 0; k < 3; ++k) field->Add(scale * one());
  }
  template <class Field>
  void add_quaternion(Field* field, bool turned) {
    double q[4] = {1, 0, 0, 0}, square = 0;
    if (turned)
      for (double& x : q) x = one();
    for (const double x : q) square += x * x;
    for (const double x : q) field->Add(x / std::sqrt(square));
  }
  template <class Owner>
  static void add_softness(Owner* owner) {
    for (const double x : {0.02, 1.0}) owner->add_solref(x);
    for (const double x : {0.9, 0.95, 0.001, 0.5, 2.0}) owner->add_solimp(x);
  }
  std::mt19937_64 random_;
};

// A free body that carries a ball, hinges and slides on two branches; 12 degrees of freedom and
// more.
inline Tree floating_tree(std::uint64_t seed) {
  Tree tree(seed);
  const int base = tree.add_body("base", 0);
  tree.add_joint(kFreeJoint);
  const int left = tree.add_body("left", base);
  tree.add_joint(kBallJoint);
  tree.add_body("left_tip", left);
  tree.add_joint(kHingeJoint);
  tree.add_joint(kSlideJoint);
  const int right = tree.add_body("right", base);
  tree.add_joint(kSlideJoint);
  tree.add_joint(kBallJoint);
  tree.add_body("right_fixed", right);
  tree.add_body("right_tip", right);
  tree.add_joint(kHingeJoint);
  tree.add_joint(kHingeJoint);
  return tree;
}

}  // namespace sdpg::testing
