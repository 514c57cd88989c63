// The solver against a slow one that shares no code with it: the same problem (M, J, D, reference
// accelerations, friction, as the stages before the solver left them) as dense matrices in long
// double, its cost written from MuJoCo's definition with the forces as its derivative, minimised by
// damped Newton steps. Problems come from random trees with contacts of every condim, limits of
// hinges and balls, and friction loss, all at once.
#define SDPG_ISA solver_test
#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>

#include "core/block.h"
#include "core/kernels_table.h"
#include "core/tree.h"

namespace sdpg::testing {
namespace {

using Real = long double;
using Vector = std::vector<Real>;

// Cost of a group of rows by their residuals, with its derivatives.
struct Group {
  std::vector<Vector> jacobian;  // [row][nv]
  Vector reference;
  // Adds to the gradient [row] and to the Hessian [row][row]; returns the cost.
  std::function<Real(const Vector& x, Vector& gradient, std::vector<Vector>& hessian)> cost;
};

Real quadratic_below(Real x, Real d, Real* first, Real* second) {
  *first = x < 0 ? d * x : 0;
  *second = x < 0 ? d : 0;
  return x < 0 ? d * x * x / 2 : 0;
}

// MuJoCo's pyramid: edges normal + friction * tangent and normal - friction * tangent.
Group pyramid(Real d, Vector friction) {
  Group group;
  group.cost = [=](const Vector& x, Vector& g, std::vector<Vector>& h) {
    Real total = 0;
    for (std::size_t k = 0; k < std::max<std::size_t>(1, friction.size()); ++k)
      for (const int side : {1, -1}) {
        Vector edge(x.size());
        edge[0] = 1;
        if (!friction.empty()) edge[k + 1] = side * friction[k];
        if (friction.empty() && side < 0) continue;
        Real value = 0, first, second;
        for (std::size_t i = 0; i < x.size(); ++i) value += edge[i] * x[i];
        total += quadratic_below(value, d, &first, &second);
        for (std::size_t i = 0; i < x.size(); ++i) {
          g[i] += first * edge[i];
          for (std::size_t j = 0; j < x.size(); ++j) h[i][j] += second * edge[i] * edge[j];
        }
      }
    return total;
  };
  return group;
}

// MuJoCo's elliptic cone in its own variables: N = mu x0, U_j = friction_j x_j, T = |U|.
Group ellipse(Real d, Vector friction, Real impratio) {
  Group group;
  group.cost = [=](const Vector& x, Vector& g, std::vector<Vector>& h) {
    const Real mu = friction[0] / std::sqrt(impratio), N = mu * x[0];
    Real square = 0;
    for (std::size_t j = 1; j < x.size(); ++j)
      square += friction[j - 1] * friction[j - 1] * x[j] * x[j];
    const Real T = std::sqrt(square);
    if (N >= mu * T) return Real(0);
    if (mu * N + T <= 0) {
      Real total = 0;
      for (std::size_t j = 0; j < x.size(); ++j) {
        // R of direction j in proportion 1 / friction^2, R of the first tangent R0 / impratio.
        const Real ratio = j == 0 ? 1 : friction[j - 1] / friction[0];
        const Real dj = j == 0 ? d : d * impratio * ratio * ratio;
        total += dj * x[j] * x[j] / 2;
        g[j] += dj * x[j];
        h[j][j] += dj;
      }
      return total;
    }
    const Real dm = d / (mu * mu * (1 + mu * mu)), gap = N - mu * T;
    Vector slope(x.size());  // of the gap
    slope[0] = mu;
    for (std::size_t j = 1; j < x.size(); ++j)
      slope[j] = -mu * friction[j - 1] * friction[j - 1] * x[j] / T;
    for (std::size_t i = 0; i < x.size(); ++i) {
      g[i] += dm * gap * slope[i];
      for (std::size_t j = 0; j < x.size(); ++j) {
        h[i][j] += dm * slope[i] * slope[j];
        if (i == 0 || j == 0) continue;
        const Real fi = friction[i - 1] * friction[i - 1], fj = friction[j - 1] * friction[j - 1];
        h[i][j] -= dm * gap * mu * ((i == j ? fi / T : 0) - fi * x[i] * fj * x[j] / (T * T * T));
      }
    }
    return dm * gap * gap / 2;
  };
  return group;
}

Group limit(Real d) { return pyramid(d, {}); }

Group friction_loss(Real d, Real force) {
  Group group;
  group.cost = [=](const Vector& x, Vector& g, std::vector<Vector>& h) {
    const Real threshold = force / d;
    if (std::abs(x[0]) < threshold) {
      g[0] += d * x[0];
      h[0][0] += d;
      return d * x[0] * x[0] / 2;
    }
    g[0] += x[0] < 0 ? -force : force;
    return force * (std::abs(x[0]) - threshold / 2);
  };
  return group;
}

struct Problem {
  int n = 0;
  std::vector<Vector> mass;
  Vector smooth;
  std::vector<Group> groups;

  Real cost(const Vector& a, Vector* gradient, std::vector<Vector>* hessian) const {
    std::vector<Vector> h = mass;
    Vector g(n);
    Real total = 0;
    for (int i = 0; i < n; ++i) {
      for (int j = 0; j < n; ++j) g[i] += mass[i][j] * (a[j] - smooth[j]);
      total += g[i] * (a[i] - smooth[i]) / 2;
    }
    for (const Group& group : groups) {
      const std::size_t rows = group.reference.size();
      Vector x(rows), row_gradient(rows);
      std::vector<Vector> row_hessian(rows, Vector(rows));
      for (std::size_t r = 0; r < rows; ++r) {
        x[r] = -group.reference[r];
        for (int i = 0; i < n; ++i) x[r] += group.jacobian[r][i] * a[i];
      }
      total += group.cost(x, row_gradient, row_hessian);
      for (std::size_t r = 0; r < rows; ++r)
        for (int i = 0; i < n; ++i) {
          g[i] += group.jacobian[r][i] * row_gradient[r];
          for (std::size_t q = 0; q < rows; ++q)
            for (int j = 0; j < n; ++j)
              h[i][j] += group.jacobian[r][i] * row_hessian[r][q] * group.jacobian[q][j];
        }
    }
    if (gradient) *gradient = g;
    if (hessian) *hessian = h;
    return total;
  }

  // Newton's method with steps halved until the cost falls enough.
  Vector minimum() const {
    Vector a = smooth;
    for (int iteration = 0; iteration < 500; ++iteration) {
      Vector gradient;
      std::vector<Vector> h;
      const Real before = cost(a, &gradient, &h);
      Vector step = gradient;  // h^-1 gradient by elimination; h is positive definite
      for (int k = 0; k < n; ++k)
        for (int i = k + 1; i < n; ++i) {
          const Real factor = h[i][k] / h[k][k];
          for (int j = k; j < n; ++j) h[i][j] -= factor * h[k][j];
          step[i] -= factor * step[k];
        }
      for (int k = n - 1; k >= 0; --k) {
        for (int j = k + 1; j < n; ++j) step[k] -= h[k][j] * step[j];
        step[k] /= h[k][k];
      }
      Real decrease = 0, size = 0, largest = 1;
      for (int i = 0; i < n; ++i) {
        decrease += gradient[i] * step[i];
        size = std::max(size, std::abs(step[i]));
        largest = std::max(largest, std::abs(a[i]));
      }
      if (size <= 1e-16L * largest) break;
      Real scale = 1;
      Vector next(n);
      for (int half = 0; half < 80; ++half, scale /= 2) {
        for (int i = 0; i < n; ++i) next[i] = a[i] - scale * step[i];
        // So near to the minimum the cost says nothing any more.
        if (decrease < 1e-14L * before) break;
        if (cost(next, nullptr, nullptr) <= before - scale * decrease / 4) break;
      }
      if (next == a || scale < 1e-20L) break;
      a = next;
    }
    return a;
  }
};

// A plane under the tree and a sphere on each body, with limits and friction loss here and there.
model::v1::Model with_rows(std::uint64_t seed, bool elliptic) {
  Tree tree = floating_tree(seed);
  model::v1::Model& m = tree.message;
  const auto chance = [&](double p) { return tree.one() < 2 * p - 1; };
  m.mutable_option()->set_cone(elliptic);
  m.mutable_option()->set_impratio(std::exp(1.5 * tree.one()));
  m.mutable_option()->set_tolerance(0);
  m.mutable_option()->set_ls_iterations(100);
  auto* b = m.mutable_bodies();
  auto* g = m.mutable_geoms();
  for (int i = 0; i < b->name_size(); ++i) {
    b->set_geomnum(i, 1);
    b->set_geomadr(i, i);
    g->add_name("geom" + std::to_string(i));
    g->add_type(i == 0 ? 0 : 2);
    g->add_bodyid(i);
    g->add_contype(1);
    g->add_conaffinity(1);
    const int condims[] = {1, 3, 4, 6};
    g->add_condim(i == 0 ? 1 : condims[static_cast<int>(2 + 1.999 * tree.one())]);
    g->add_priority(0);
    for (int k = 0; k < 3; ++k) {
      g->add_size(i == 0 ? 1 : 0.25 + 0.1 * tree.one());
      g->add_pos(i == 0 ? 0 : 0.1 * tree.one());
    }
    for (int k = 0; k < 4; ++k) g->add_quat(k == 0);
    g->add_friction(0.6 + 0.5 * tree.one());
    g->add_friction(0.05 + 0.04 * tree.one());
    g->add_friction(0.02 + 0.015 * tree.one());
    g->add_solmix(1);
    for (const double x : {0.02, 1.0}) g->add_solref(x);
    for (const double x : {0.8, 0.99, 0.05, 0.5, 2.0}) g->add_solimp(x);
    g->add_margin(0.02);
    g->add_gap(0);
  }
  for (int i = 0; i < m.joints().type_size(); ++i) {
    if (m.joints().type(i) == kFreeJoint || !chance(0.7)) continue;
    m.mutable_joints()->set_limited(i, 1);
    m.mutable_joints()->set_range(2 * i, m.joints().type(i) == kBallJoint ? 0 : -0.2);
    m.mutable_joints()->set_range(2 * i + 1, 0.3);
  }
  for (int i = 0; i < m.dofs().bodyid_size(); ++i)
    if (chance(0.5)) m.mutable_dofs()->set_frictionloss(i, std::exp(2 * tree.one()));
  return m;
}

template <class P, class Team>
class Solved {
 public:
  using T = typename P::Scalar;
  Solved(const core::Model& model, std::mt19937_64& random, bool warm)
      : m_(model),
        memory_(core::table_scratch_bytes<P, Team>(model) + 64),
        state_((m_.nq + 2 * m_.nv + 1) * P::lanes * sizeof(P) + 64) {
    std::uniform_real_distribution<double> one(-1, 1);
    P* at = reinterpret_cast<P*>(aligned(state_));
    core::BlockView view{};
    view.qpos = at;
    view.qvel = at + m_.nq;
    view.qacc_warmstart = at + m_.nq + m_.nv;
    const auto fill = [&](int i, const std::function<double(int)>& value) {
      for (int lane = 0; lane < P::lanes; ++lane)
        core::set_lane(at[i], lane, static_cast<T>(value(lane)));
    };
    for (int i = 0; i < m_.nq; ++i) {
      const double base = model.d.qpos0[i];
      fill(i, [&](int) { return base + 0.6 * one(random); });
    }
    for (int i = 0; i < m_.nv; ++i) {
      fill(m_.nq + i, [&](int) { return 2 * one(random); });
      fill(m_.nq + m_.nv + i, [&](int) { return warm ? 20 * one(random) : 0; });
    }
    scratch_ = std::make_unique<core::Scratch<P, Team>>(
        core::open_scratch<P, Team>(model, view, aligned(memory_)));
    unfinished = core::forward(*scratch_);
  }
  std::uint32_t unfinished;

  Problem problem(int lane) const {
    const auto& s = *scratch_;
    Problem p;
    p.n = m_.nv;
    p.mass.assign(p.n, Vector(p.n));
    for (int i = 0; i < p.n; ++i) {
      p.smooth.push_back(s.smooth[i][lane]);
      p.mass[i][i] = s.mass[core::triangle(i, i)][lane];
      for (int c = m_.mass.begin[i]; c < m_.mass.begin[i + 1]; ++c) {
        const int j = m_.mass.col[c];
        p.mass[i][j] = p.mass[j][i] = s.mass[core::triangle(i, j)][lane];
      }
    }
    for (int c = 0; c < s.contact_count; ++c) {
      const auto& contact = s.contacts[c];
      if (!(contact.stiffness[lane] > 0)) continue;
      const core::Pair& pair = m_.pair[contact.pair];
      Vector friction;
      for (int k = 0; k + 1 < pair.condim; ++k)
        friction.push_back(constants<T>(m_).friction[5 * contact.pair + k]);
      const Real impratio = Real(constants<T>(m_).impratio_root) * constants<T>(m_).impratio_root;
      Group group = m_.elliptic && pair.condim > 1
                        ? ellipse(contact.stiffness[lane], friction, impratio)
                        : pyramid(contact.stiffness[lane], friction);
      for (int k = 0; k < pair.condim; ++k) {
        group.reference.push_back(s.reference(c)[k][lane]);
        group.jacobian.emplace_back(p.n);
        for (int i = 0; i < pair.dof_count; ++i)
          group.jacobian[k][m_.pair_dof[pair.dof_begin + i]] =
              s.jacobian(c)[i * pair.condim + k][lane];
      }
      p.groups.push_back(group);
    }
    contacts += static_cast<int>(p.groups.size());
    for (int l = 0; l < s.limit_count; ++l) {
      const auto& row = s.limits[l];
      if (!(row.stiffness[lane] > 0)) continue;
      Group group = limit(row.stiffness[lane]);
      group.reference = {row.reference[lane]};
      group.jacobian.emplace_back(p.n);
      for (int k = 0; k < row.dofs; ++k) group.jacobian[0][row.dof + k] = row.axis[k][lane];
      p.groups.push_back(group);
      (row.dofs == 1 ? limits : ball_limits) += 1;
    }
    for (int i = 0; i < m_.nloss; ++i) {
      Group group =
          friction_loss(constants<T>(m_).loss_stiffness[i], constants<T>(m_).loss_force[i]);
      group.reference = {s.losses[i].reference[lane]};
      group.jacobian.emplace_back(p.n);
      group.jacobian[0][m_.loss_dof[i]] = 1;
      p.groups.push_back(group);
    }
    return p;
  }
  Vector acceleration(int lane) const {
    Vector out;
    for (int i = 0; i < m_.nv; ++i) out.push_back(scratch_->qacc[i][lane]);
    return out;
  }
  mutable int contacts = 0, limits = 0, ball_limits = 0;

 private:
  static unsigned char* aligned(std::vector<unsigned char>& bytes) {
    return bytes.data() + (64 - reinterpret_cast<std::uintptr_t>(bytes.data()) % 64) % 64;
  }
  const core::Model& m_;
  std::vector<unsigned char> memory_, state_;
  std::unique_ptr<core::Scratch<P, Team>> scratch_;
};

// Accelerations agree relative to the largest of the lane.
template <class P, class Team>
void expect_minimum(double tolerance) {
  const std::uint64_t seed = test_seed();
  int contacts = 0, limits = 0, ball_limits = 0;
  for (int trial = 0; trial < 60; ++trial) {
    SCOPED_TRACE(::testing::Message() << "seed " << seed << " trial " << trial);
    std::mt19937_64 random(seed + static_cast<unsigned>(trial));
    const auto m = made(with_rows(seed + static_cast<unsigned>(trial), trial % 2 == 0));
    ASSERT_TRUE(m);
    const Solved<P, Team> solved(*m, random, trial % 3 == 0);
    EXPECT_EQ(solved.unfinished, 0u);
    for (int lane = 0; lane < P::lanes; ++lane) {
      const Problem problem = solved.problem(lane);
      const Vector expected = problem.minimum(), found = solved.acceleration(lane);
      Real largest = 1;
      for (const Real a : expected) largest = std::max(largest, std::abs(a));
      for (int i = 0; i < problem.n; ++i)
        EXPECT_NEAR(static_cast<double>(found[i] / largest),
                    static_cast<double>(expected[i] / largest), tolerance)
            << "dof " << i << " lane " << lane;
    }
    contacts += solved.contacts;
    limits += solved.limits;
    ball_limits += solved.ball_limits;
  }
  EXPECT_GT(contacts, 60);
  EXPECT_GT(limits, 20);
  EXPECT_GT(ball_limits, 20);
}

TEST(Solver, SolveFindsTheMinimumOfEveryKindOfRowInDouble) {
  expect_minimum<core::Pack<double, 2>, core::Alone>(1e-10);
}

TEST(Solver, SolveFindsTheMinimumOfEveryKindOfRowInFloat32) {
  expect_minimum<core::Pack<float, 4>, core::Alone>(1e-4);
}

TEST(Solver, SolveFindsTheMinimumOfEveryKindOfRowAsATeam) {
  expect_minimum<core::Pack<double, 1>, core::EmulatedTeam<8>>(1e-10);
}

// A lane that can have no solution ends at once instead of keeping all others at work.
TEST(Solver, ForwardReportsNothingUnfinishedWhenALaneIsNotFinite) {
  for (const core::Kernels* k : all_kernels()) {
    const auto m = made(hopper_message());
    for (const double bad : {std::nan(""), std::numeric_limits<double>::infinity(), 1e30}) {
      std::mt19937_64 random(test_seed());
      Block block(*m, *k);
      for (int lane = 0; lane < k->lanes; ++lane) block.randomize(lane, random);
      block.set(Block::kQvel, 3, 0, bad);
      block.forward();
      EXPECT_EQ(block.status(0) & core::kNotConverged, 0u) << k->isa << " " << bad;
    }
  }
}

}  // namespace
}  // namespace sdpg::testing
