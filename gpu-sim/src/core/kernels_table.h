// The functions of `Kernels` over one pack. kernels_<isa>.cc includes this once, with SDPG_ISA set
// and the flags of its instruction set, and makes a table for each precision.
#pragma once

#include "core/kernels.h"
#include "core/step.h"
#include "task/program_kernels.h"

namespace sdpg::core {
SDPG_ISA_BEGIN

// Contacts that the emulated table keeps in the first piece of its scratch memory: few, so that
// tests reach the second.
inline constexpr int kEmulatedContacts = 2;

// Divides a worker's scratch memory.
template <class P, class Team>
Workspace workspace(const Model& model, void* memory) {
  if constexpr (Team::members == 1) return {memory};
  const Workspace first{memory, memory, kEmulatedContacts};
  const std::size_t near = (Scratch<P, Team>(model, first).bytes() + 63) / 64 * 64;
  return {memory, static_cast<unsigned char*>(memory) + near, kEmulatedContacts};
}

// The team a table computes with; kernels_emulated.cc has one of its own.
template <class Team>
Team team_of_table() {
  return {};
}

template <class P, class Team>
Scratch<P, Team> open_scratch(const Model& model, const BlockView& view, void* memory) {
  Scratch<P, Team> s(model, workspace<P, Team>(model, memory));
  s.team = team_of_table<Team>();
  s.qpos = static_cast<P*>(view.qpos);
  s.qvel = static_cast<P*>(view.qvel);
  s.ctrl = static_cast<P*>(view.ctrl);
  s.warmstart = static_cast<P*>(view.qacc_warmstart);
  s.act = static_cast<P*>(view.act);
  s.parameters = static_cast<const P*>(view.parameters);
  return s;
}

template <class P>
void set_status(const BlockView& view, std::uint32_t lanes, StatusBit bit) {
  for (int lane = 0; lanes != 0; ++lane, lanes >>= 1)
    if (lanes & 1) view.status[lane] |= bit;
}

template <class P, class Team>
std::size_t table_scratch_bytes(const Model& model) {
  alignas(64) unsigned char header[64];  // never written: only offsets are computed
  const Scratch<P, Team> s(model, workspace<P, Team>(model, header));
  return (s.bytes() + 63) / 64 * 64 + s.far_bytes();
}

template <class P, class Team>
void table_step(const Model& model, const BlockView& view, void* memory, int substeps) {
  Scratch<P, Team> s = open_scratch<P, Team>(model, view, memory);
  const StepFaults faults =
      run_substeps(s, substeps, view.sensor, view.nsensor, static_cast<P*>(view.sensordata));
  *s.kept_contact_count = s.contact_count;
  set_status<P>(view, faults.non_finite, kNonFinite);
  set_status<P>(view, faults.overflow, kOverflow);
  set_status<P>(view, faults.not_converged, kNotConverged);
}

template <class P, class Team>
void table_kinematics(const Model& model, const BlockView& view, void* memory) {
  Scratch<P, Team> s = open_scratch<P, Team>(model, view, memory);
  s.xpos = static_cast<P*>(view.xpos);
  s.xquat = static_cast<P*>(view.xquat);
  s.xipos = static_cast<P*>(view.xipos);
  kinematics(s);
  measure_velocities(s, view.sensor, view.nsensor, static_cast<P*>(view.sensordata));
}

template <class P, class Team>
void table_forward(const Model& model, const BlockView& view, void* memory, void* qacc,
                   void* qacc_smooth, void* qfrc_constraint) {
  Scratch<P, Team> s = open_scratch<P, Team>(model, view, memory);
  const std::uint32_t not_converged = forward(s);
  *s.kept_contact_count = s.contact_count;
  for (int i = 0; i < model.nv; ++i) {
    static_cast<P*>(qacc)[i] = s.qacc[i];
    static_cast<P*>(qacc_smooth)[i] = s.smooth[i];
    static_cast<P*>(qfrc_constraint)[i] = s.qfrc_constraint[i];
  }
  set_status<P>(view, not_converged, kNotConverged);
  set_status<P>(view, s.overflow_lanes, kOverflow);
}

template <class P, class Team>
int table_contacts(const Model& model, const void* memory, int lane, double* out) {
  const Scratch<P, Team> s(model, workspace<P, Team>(model, const_cast<void*>(memory)));
  int count = 0;
  for (int c = 0; c < *s.kept_contact_count; ++c) {
    const Contact<P>& contact = s.contacts[c];
    if (!(contact.stiffness[lane] > 0)) continue;
    double* row = out + kContactNumbers * count++;
    const auto put = [&](const Vec3<P>& v) {
      *row++ = v.x[lane];
      *row++ = v.y[lane];
      *row++ = v.z[lane];
    };
    *row++ = contact.distance[lane];
    put(contact.position);
    put(contact.normal);
    put(contact.tangent1);
    put(contact.tangent2);
    *row++ = model.pair[contact.pair].geom1;
    *row++ = model.pair[contact.pair].geom2;
    const int condim = model.pair[contact.pair].condim;
    for (int i = 0; i < 6; ++i) *row++ = i < condim ? s.force(c)[i][lane] : 0;
  }
  return count;
}

template <class P, class Team = Alone>
constexpr Kernels make_table(const char* isa) {
  return {isa,
          P::lanes,
          static_cast<int>(sizeof(typename P::Scalar)),
          table_scratch_bytes<P, Team>,
          table_step<P, Team>,
          table_kinematics<P, Team>,
          table_forward<P, Team>,
          table_contacts<P, Team>,
          task::run_program<P>};
}

SDPG_ISA_END
}  // namespace sdpg::core
