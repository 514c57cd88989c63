// The evaluator of task programs over packs, included by core/kernels_<isa>.cc, which puts
// `task::run_program<Pack<T, L>>` into its table. One switch per instruction, one loop over its
// registers; lanes never meet. Everything was checked by make_program (program.cc).
//
// Semantics where the contract leaves room: MIN and MAX give b where a is NaN; a NaN operand of the
// logic operations is true, as any non-zero number; WRAP_ANGLE is a + 2 pi floor((pi - a) / (2
// pi)), so that an angle inside (-pi, pi] passes unchanged; sums run in index order from 0.
#pragma once

#include <cstdint>

#include "core/simd.h"
#include "task/program.h"

namespace sdpg::task {
SDPG_ISA_BEGIN

// Numbers of sdpg.task.v1.Opcode; program.cc asserts that they agree.
inline constexpr std::uint32_t kConstant = 1, kMove = 2, kAdd = 10, kSub = 11, kMul = 12, kDiv = 13,
                               kMin = 14, kMax = 15, kNeg = 16, kAbs = 17, kSqrt = 18, kExp = 19,
                               kLog = 20, kSin = 21, kCos = 22, kTanh = 23, kAtan2 = 24,
                               kFloor = 25, kMulAdd = 26, kWrapAngle = 27, kLess = 40,
                               kLessEqual = 41, kEqual = 42, kAnd = 43, kOr = 44, kNot = 45,
                               kSelect = 46, kSum = 60, kReduceMax = 61, kReduceMin = 62, kDot = 63,
                               kLoadQpos = 80, kLoadQvel = 81, kLoadCtrl = 82, kLoadAction = 83,
                               kLoadXpos = 84, kLoadXquat = 85, kLoadXipos = 86, kLoadProgress = 87,
                               kRandomUniform = 88, kLoadSensor = 89, kLoadParameter = 90,
                               kLoadAct = 91, kStoreQpos = 100, kStoreQvel = 101, kStoreCtrl = 102,
                               kStoreParameter = 103;

// Numbers from one row of a block's arrays to the next: its lanes. Where a CUDA thread computes one
// of the lanes, a pack has fewer.
template <class P>
inline constexpr int kRowStride =
#if defined(SDPG_ROW_STRIDE)
    SDPG_ROW_STRIDE;
#else
    P::lanes;
#endif

template <class P, class Function>
SDPG_INLINE void map1(typename P::Scalar* registers, const Op& op, Function f) {
  constexpr int L = kRowStride<P>;
  auto* dst = registers + op.dst * L;
  const auto* a = registers + op.a * L;
  for (std::uint32_t i = 0; i < op.length; ++i) {
    core::store(dst + i * L, f(core::load<P>(a + i * op.a_step * L)));
  }
}

template <class P, class Function>
SDPG_INLINE void map2(typename P::Scalar* registers, const Op& op, Function f) {
  constexpr int L = kRowStride<P>;
  auto* dst = registers + op.dst * L;
  const auto* a = registers + op.a * L;
  const auto* b = registers + op.b * L;
  for (std::uint32_t i = 0; i < op.length; ++i) {
    core::store(dst + i * L,
                f(core::load<P>(a + i * op.a_step * L), core::load<P>(b + i * op.b_step * L)));
  }
}

template <class P, class Function>
SDPG_INLINE void map3(typename P::Scalar* registers, const Op& op, Function f) {
  constexpr int L = kRowStride<P>;
  auto* dst = registers + op.dst * L;
  const auto* a = registers + op.a * L;
  const auto* b = registers + op.b * L;
  const auto* c = registers + op.c * L;
  for (std::uint32_t i = 0; i < op.length; ++i) {
    core::store(dst + i * L,
                f(core::load<P>(a + i * op.a_step * L), core::load<P>(b + i * op.b_step * L),
                  core::load<P>(c + i * op.c_step * L)));
  }
}

template <class P, class Function>
SDPG_INLINE void reduce(typename P::Scalar* registers, const Op& op, P start, std::uint32_t first,
                        Function f) {
  constexpr int L = kRowStride<P>;
  P total = start;
  for (std::uint32_t i = first; i < op.length; ++i) total = f(total, i);
  core::store(registers + op.dst * L, total);
}

// Copies op.length rows between registers and an array of the block.
template <class P>
SDPG_INLINE void copy_rows(typename P::Scalar* to, const typename P::Scalar* from,
                           std::uint32_t rows, std::uint32_t step) {
  constexpr int L = kRowStride<P>;
  for (std::uint32_t i = 0; i < rows; ++i)
    core::store(to + i * L, core::load<P>(from + i * step * L));
}

template <class P>
SDPG_FN void run_program(const void* section_pointer, const void* args_pointer) {
  using T = typename P::Scalar;
  constexpr int L = kRowStride<P>;
  const Section& section = *static_cast<const Section*>(section_pointer);
  const ProgramArgs& args = *static_cast<const ProgramArgs*>(args_pointer);
  T* const registers = static_cast<T*>(args.registers);
  const P zero = P(T(0)), one = P(T(1));
  const auto loaded = [&](const void* source, const Op& op) {
    copy_rows<P>(registers + op.dst * L, static_cast<const T*>(source) + op.index * L, op.length,
                 1);
  };
  const auto stored = [&](void* destination, const Op& op) {
    copy_rows<P>(static_cast<T*>(destination) + op.index * L, registers + op.a * L, op.length,
                 op.a_step);
  };

  for (std::uint32_t n = 0; n < section.count; ++n) {
    const Op& op = section.ops[n];
    switch (op.op) {
      case kConstant: {
        const P value = P(T(op.immediate));
        for (std::uint32_t i = 0; i < op.length; ++i)
          core::store(registers + (op.dst + i) * L, value);
        break;
      }
      case kMove:
        map1<P>(registers, op, [](P a) { return a; });
        break;
      case kAdd:
        map2<P>(registers, op, [](P a, P b) { return a + b; });
        break;
      case kSub:
        map2<P>(registers, op, [](P a, P b) { return a - b; });
        break;
      case kMul:
        map2<P>(registers, op, [](P a, P b) { return a * b; });
        break;
      case kDiv:
        map2<P>(registers, op, [](P a, P b) { return a / b; });
        break;
      case kMin:
        map2<P>(registers, op, [](P a, P b) { return core::min(a, b); });
        break;
      case kMax:
        map2<P>(registers, op, [](P a, P b) { return core::max(a, b); });
        break;
      case kNeg:
        map1<P>(registers, op, [](P a) { return -a; });
        break;
      case kAbs:
        map1<P>(registers, op, [](P a) { return core::abs(a); });
        break;
      case kSqrt:
        map1<P>(registers, op, [](P a) { return core::sqrt(a); });
        break;
      case kExp:
        map1<P>(registers, op, [](P a) { return core::exp(a); });
        break;
      case kLog:
        map1<P>(registers, op, [](P a) { return core::log(a); });
        break;
      case kSin:
        map1<P>(registers, op, [](P a) { return core::sin(a); });
        break;
      case kCos:
        map1<P>(registers, op, [](P a) { return core::cos(a); });
        break;
      case kTanh:
        map1<P>(registers, op, [](P a) { return core::tanh(a); });
        break;
      case kAtan2:
        map2<P>(registers, op, [](P a, P b) { return core::atan2(a, b); });
        break;
      case kFloor:
        map1<P>(registers, op, [](P a) { return core::floor(a); });
        break;
      case kMulAdd:
        map3<P>(registers, op, [](P a, P b, P c) { return core::muladd(a, b, c); });
        break;
      case kWrapAngle: {
        const P pi = P(T(3.14159265358979323846)), turn = P(T(6.28318530717958647692));
        map1<P>(registers, op, [=](P a) { return a + turn * core::floor((pi - a) / turn); });
        break;
      }
      case kLess:
        map2<P>(registers, op, [=](P a, P b) { return core::select(a < b, one, zero); });
        break;
      case kLessEqual:
        map2<P>(registers, op, [=](P a, P b) { return core::select(a <= b, one, zero); });
        break;
      case kEqual:
        map2<P>(registers, op, [=](P a, P b) { return core::select(a == b, one, zero); });
        break;
      case kAnd:
        map2<P>(registers, op,
                [=](P a, P b) { return core::select((a != zero) & (b != zero), one, zero); });
        break;
      case kOr:
        map2<P>(registers, op,
                [=](P a, P b) { return core::select((a != zero) | (b != zero), one, zero); });
        break;
      case kNot:
        map1<P>(registers, op, [=](P a) { return core::select(a == zero, one, zero); });
        break;
      case kSelect:
        map3<P>(registers, op, [=](P a, P b, P c) { return core::select(a != zero, b, c); });
        break;
      case kSum:
        reduce<P>(registers, op, zero, 0, [&](P total, std::uint32_t i) {
          return total + core::load<P>(registers + (op.a + i * op.a_step) * L);
        });
        break;
      case kReduceMax:
        reduce<P>(registers, op, core::load<P>(registers + op.a * L), 1,
                  [&](P total, std::uint32_t i) {
                    return core::max(total, core::load<P>(registers + (op.a + i * op.a_step) * L));
                  });
        break;
      case kReduceMin:
        reduce<P>(registers, op, core::load<P>(registers + op.a * L), 1,
                  [&](P total, std::uint32_t i) {
                    return core::min(total, core::load<P>(registers + (op.a + i * op.a_step) * L));
                  });
        break;
      case kDot:
        reduce<P>(registers, op, zero, 0, [&](P total, std::uint32_t i) {
          return core::muladd(core::load<P>(registers + (op.a + i * op.a_step) * L),
                              core::load<P>(registers + (op.b + i * op.b_step) * L), total);
        });
        break;
      case kLoadQpos:
        loaded(args.qpos, op);
        break;
      case kLoadQvel:
        loaded(args.qvel, op);
        break;
      case kLoadCtrl:
        loaded(args.ctrl, op);
        break;
      case kLoadAction:
        loaded(args.action, op);
        break;
      case kLoadXpos:
        loaded(args.xpos, op);
        break;
      case kLoadXquat:
        loaded(args.xquat, op);
        break;
      case kLoadXipos:
        loaded(args.xipos, op);
        break;
      case kLoadProgress:
        for (std::uint32_t i = 0; i < op.length; ++i) {
          T* dst = registers + (op.dst + i) * L;
          for (int lane = 0; lane < P::lanes; ++lane)
            dst[lane] = static_cast<T>(args.progress[lane]);
        }
        break;
      case kRandomUniform:
        loaded(args.uniforms, op);
        break;
      case kLoadSensor:
        loaded(args.sensordata, op);
        break;
      case kLoadParameter:
        loaded(args.parameters, op);
        break;
      case kLoadAct:
        loaded(args.act, op);
        break;
      case kStoreQpos:
        stored(args.qpos, op);
        break;
      case kStoreQvel:
        stored(args.qvel, op);
        break;
      case kStoreCtrl:
        stored(args.ctrl, op);
        break;
      case kStoreParameter:
        stored(args.parameters, op);
        break;
      default:
        break;  // make_program lets no other number through
    }
  }
}

SDPG_ISA_END
}  // namespace sdpg::task
