// The operator table: one line an operator, with the names and meanings PyTorch gives them.
// Arguments that are not tensors come as numbers; "list" is a length followed by its elements, "?x"
// a flag followed by a value.

#include <cmath>

#include "conv.h"
#include "mlp.h"
#include "optim.h"
#include "runtime.h"

namespace sdpg {
namespace {

using A = Arguments;

void give(A& a, at::Tensor tensor) { a.out.push_back(std::move(tensor)); }

// Numbers: ?minimum, ?maximum. (c10::optional became std::optional between libtorch 1.13 and 2:
// neither is named here.)
void clamp_into(const A& a, at::Tensor& x) {
  if (a.flag(0)) x.clamp_min_(a.scalar(1));
  if (a.flag(2)) x.clamp_max_(a.scalar(3));
}

at::Tensor clamp(const A& a, const at::Tensor& x) {
  if (a.flag(0) && a.flag(2)) return at::clamp(x, a.scalar(1), a.scalar(3));
  if (a.flag(0)) return at::clamp_min(x, a.scalar(1));
  if (a.flag(2)) return at::clamp_max(x, a.scalar(3));
  refuse("expected a minimum, a maximum or both");
}

at::TensorOptions options(const A& a, int32_t i) { return at::TensorOptions().dtype(a.dtype(i)); }

// Generalised advantage style λ-return, running t = T−1 … 0 (reference/sdpg.md 1.5, the form that
// is safe at λ = 1):
//   J_t = r_t + γ V'_t                                 where d_t
//   J_t = r_t + γ [(1 − λ) V'_t + λ J_{t+1}]           elsewhere
template <typename Real>
void lambda_return_kernel(const Real* reward, const Real* bootstrap, const uint8_t* done, Real* out,
                          int64_t steps, int64_t width, double gamma, double lambda) {
  const Real g = static_cast<Real>(gamma);
  const Real l = static_cast<Real>(lambda);
  const Real one_minus_l = static_cast<Real>(1 - lambda);
  for (int64_t t = steps - 1; t >= 0; --t) {
    const Real* r = reward + t * width;
    const Real* v = bootstrap + t * width;
    const uint8_t* d = done + t * width;
    Real* j = out + t * width;
    const Real* next = t + 1 < steps ? j + width : nullptr;
    for (int64_t e = 0; e < width; ++e) {
      // The last step has no successor in the segment: whether or not it is marked done, V' is all
      // there is.
      const bool ends = d[e] != 0 || next == nullptr;
      j[e] = r[e] + g * (ends ? v[e] : one_minus_l * v[e] + l * next[e]);
    }
  }
}

at::Tensor lambda_return(const at::Tensor& reward, const at::Tensor& bootstrap,
                         const at::Tensor& done, double gamma, double lambda) {
  if (reward.dim() != 2 || reward.sizes() != bootstrap.sizes() || reward.sizes() != done.sizes()) {
    refuse("expected three tensors of one shape [T, E]");
  }
  if (reward.scalar_type() != bootstrap.scalar_type())
    refuse("reward and bootstrap must have one dtype");
  const at::Tensor r = reward.detach().contiguous();
  const at::Tensor v = bootstrap.detach().contiguous();
  const at::Tensor d = done.detach().to(at::kBool).contiguous();
  at::Tensor j = at::empty_like(r);
  const auto* flags = reinterpret_cast<const uint8_t*>(d.data_ptr<bool>());
  const int64_t steps = r.size(0);
  const int64_t width = r.size(1);
  if (r.scalar_type() == at::kFloat) {
    lambda_return_kernel(r.data_ptr<float>(), v.data_ptr<float>(), flags, j.data_ptr<float>(),
                         steps, width, gamma, lambda);
  } else if (r.scalar_type() == at::kDouble) {
    lambda_return_kernel(r.data_ptr<double>(), v.data_ptr<double>(), flags, j.data_ptr<double>(),
                         steps, width, gamma, lambda);
  } else {
    refuse("expected float32 or float64");
  }
  return j;
}

// Scales the gradients so that their global L2 norm is at most numbers[0]; answers numbers[0] =
// norm before.
void clip_grad_norm(A& a) {
  const double max_norm = a.real(0);
  if (!(max_norm > 0)) refuse("expected a positive norm");
  c10::NoGradGuard no_grad;
  double sum = 0;
  for (int32_t i = 0; i < a.handle_count; ++i) {
    const at::Tensor& gradient = a.t(i).grad();
    if (gradient.defined()) sum += sum_of_squares(gradient);
  }
  const double norm = std::sqrt(sum);
  const double scale = clip_scale(norm, max_norm);
  if (scale < 1) {
    for (int32_t i = 0; i < a.handle_count; ++i) {
      at::Tensor gradient = a.t(i).grad();
      if (gradient.defined()) gradient.mul_(scale);
    }
  }
  a.numbers[0] = norm;
}

// Tensors: n parameters, n first moments, n second moments; parameters without a gradient are left
// alone. Numbers: lr, β1, β2, ε, weight decay, step (counted from 1).
void adam_step(A& a) {
  c10::NoGradGuard no_grad;
  if (a.handle_count % 3 != 0)
    refuse("expected parameters, first and second moments in equal number");
  const int32_t count = a.handle_count / 3;
  const AdamOptions options{a.real(0), a.real(1), a.real(2), a.real(3), a.real(4), a.integer(5)};
  for (int32_t i = 0; i < count; ++i) {
    at::Tensor parameter = a.t(i);
    const at::Tensor& gradient = parameter.grad();
    if (!gradient.defined()) continue;
    adam_update(parameter, gradient, a.t(count + i), a.t(2 * count + i), options);
  }
}

// Registers name (tensor, tensor) and name_s (tensor, number); f is called with (Tensor, Tensor or
// Scalar).
template <typename F>
void binary(std::vector<Operator>& table, const std::string& name, F f) {
  table.push_back({name, 2, 0, [f](A& a) { give(a, f(a.t(0), a.t(1))); }});
  table.push_back({name + "_s", 1, 1, [f](A& a) { give(a, f(a.t(0), a.scalar(0))); }});
}

template <typename F>
void unary(std::vector<Operator>& table, const std::string& name, F f) {
  table.push_back({name, 1, 0, [f](A& a) { give(a, f(a.t(0))); }});
}

// Registers name_ and name__s, which change their first tensor.
template <typename F>
void in_place(std::vector<Operator>& table, const std::string& name, F f) {
  table.push_back({name + "_", 2, 0, [f](A& a) {
                     at::Tensor x = a.t(0);
                     f(x, a.t(1));
                   }});
  table.push_back({name + "__s", 1, 1, [f](A& a) {
                     at::Tensor x = a.t(0);
                     f(x, a.scalar(0));
                   }});
}

std::vector<Operator> build() {
  using T = at::Tensor;
  std::vector<Operator> table = {
      {"minimum", 2, 0, [](A& a) { give(a, at::minimum(a.t(0), a.t(1))); }},
      {"minimum_s", 1, 1, [](A& a) { give(a, at::clamp_max(a.t(0), a.scalar(0))); }},
      {"maximum", 2, 0, [](A& a) { give(a, at::maximum(a.t(0), a.t(1))); }},
      {"maximum_s", 1, 1, [](A& a) { give(a, at::clamp_min(a.t(0), a.scalar(0))); }},
      {"rsub_s", 1, 1, [](A& a) { give(a, at::rsub(a.t(0), a.scalar(0))); }},
      {"logical_and", 2, 0, [](A& a) { give(a, at::logical_and(a.t(0), a.t(1))); }},
      {"logical_or", 2, 0, [](A& a) { give(a, at::logical_or(a.t(0), a.t(1))); }},
      {"where", 3, 0, [](A& a) { give(a, at::where(a.t(0), a.t(1), a.t(2))); }},
      {"clamp", 1, 4, [](A& a) { give(a, clamp(a, a.t(0))); }},
      {"to", 1, 1, [](A& a) { give(a, a.t(0).to(a.dtype(0))); }},

      // Reductions. An empty list of dimensions means all.
      {"sum", 1, 2,
       [](A& a) {
         const auto dims = a.list(1);
         give(a, dims.empty() ? a.t(0).sum() : a.t(0).sum(dims, a.flag(0)));
       }},
      {"mean", 1, 2,
       [](A& a) {
         const auto dims = a.list(1);
         give(a, dims.empty() ? a.t(0).mean() : a.t(0).mean(dims, a.flag(0)));
       }},
      {"var", 1, 3,
       [](A& a) {
         const auto dims = a.list(2);
         give(a, dims.empty() ? a.t(0).var(a.flag(1))
                              : a.t(0).var(at::IntArrayRef(dims), a.flag(1), a.flag(0)));
       }},
      {"std", 1, 3,
       [](A& a) {
         const auto dims = a.list(2);
         give(a, dims.empty() ? a.t(0).std(a.flag(1))
                              : a.t(0).std(at::IntArrayRef(dims), a.flag(1), a.flag(0)));
       }},
      {"max", 1, 2,
       [](A& a) {
         const auto dims = a.list(1);
         give(a, dims.empty() ? a.t(0).max() : a.t(0).amax(dims, a.flag(0)));
       }},
      {"min", 1, 2,
       [](A& a) {
         const auto dims = a.list(1);
         give(a, dims.empty() ? a.t(0).min() : a.t(0).amin(dims, a.flag(0)));
       }},
      {"argmax", 1, 2, [](A& a) { give(a, a.t(0).argmax(a.integer(1), a.flag(0))); }},
      {"argmin", 1, 2, [](A& a) { give(a, a.t(0).argmin(a.integer(1), a.flag(0))); }},
      {"all", 1, 0, [](A& a) { give(a, a.t(0).all()); }},
      {"any", 1, 0, [](A& a) { give(a, a.t(0).any()); }},
      {"norm", 1, 0, [](A& a) { give(a, a.t(0).norm()); }},
      {"cumsum", 1, 1, [](A& a) { give(a, a.t(0).cumsum(a.integer(0))); }},

      // Shape.
      {"reshape", 1, 1, [](A& a) { give(a, a.t(0).reshape(a.list(0))); }},
      {"transpose", 1, 2, [](A& a) { give(a, a.t(0).transpose(a.integer(0), a.integer(1))); }},
      {"permute", 1, 1, [](A& a) { give(a, a.t(0).permute(a.list(0))); }},
      {"unsqueeze", 1, 1, [](A& a) { give(a, a.t(0).unsqueeze(a.integer(0))); }},
      {"squeeze", 1, 1, [](A& a) { give(a, a.t(0).squeeze(a.integer(0))); }},
      {"expand", 1, 1, [](A& a) { give(a, a.t(0).expand(a.list(0))); }},
      {"slice", 1, 4,
       [](A& a) { give(a, a.t(0).slice(a.integer(0), a.integer(1), a.integer(2), a.integer(3))); }},
      {"select", 1, 2, [](A& a) { give(a, a.t(0).select(a.integer(0), a.integer(1))); }},
      {"index_select", 2, 1, [](A& a) { give(a, a.t(0).index_select(a.integer(0), a.t(1))); }},
      {"gather", 2, 1, [](A& a) { give(a, a.t(0).gather(a.integer(0), a.t(1))); }},
      {"repeat_interleave", 1, 2,
       [](A& a) { give(a, a.t(0).repeat_interleave(a.integer(0), a.integer(1))); }},
      {"flatten", 1, 1, [](A& a) { give(a, a.t(0).flatten(a.integer(0))); }},
      {"flip", 1, 1, [](A& a) { give(a, a.t(0).flip(a.list(0))); }},
      {"topk", 1, 2,
       [](A& a) {
         auto [values, indices] = a.t(0).topk(a.integer(0), a.integer(1));
         give(a, values);
         give(a, indices);
       }},
      {"cat", -1, 1, [](A& a) { give(a, at::cat(a.tensors(0, a.handle_count), a.integer(0))); }},
      {"stack", -1, 1,
       [](A& a) { give(a, at::stack(a.tensors(0, a.handle_count), a.integer(0))); }},

      // Products and layers. Optional tensors follow the required ones.
      {"matmul", 2, 0, [](A& a) { give(a, at::matmul(a.t(0), a.t(1))); }},
      {"linear", -1, 0,
       [](A& a) {
         give(a,
              a.handle_count > 2 ? at::linear(a.t(0), a.t(1), a.t(2)) : at::linear(a.t(0), a.t(1)));
       }},
      {"layer_norm", -1, 2,
       [](A& a) {
         const bool weight = a.handle_count > 1, bias = a.handle_count > 2;
         give(a, at::layer_norm(a.t(0), a.list(1), weight ? a.t(1) : at::Tensor(),
                                bias ? a.t(2) : at::Tensor(), a.real(0), false));
       }},
      // Numbers: stride, padding; tensors: input [B, C, H, W], weight [O, C, h, w], bias [O]?
      {"conv2d", -1, 2,
       [](A& a) {
         const int64_t stride = a.integer(0), padding = a.integer(1);
         give(a, at::conv2d(a.t(0), a.t(1), a.handle_count > 2 ? a.t(2) : at::Tensor(),
                            {stride, stride}, {padding, padding}));
       }},
      {"mse_loss", 2, 0, [](A& a) { give(a, at::mse_loss(a.t(0), a.t(1))); }},
      {"qr", 1, 0,
       [](A& a) {
         auto [q, r] = at::linalg_qr(a.t(0));
         give(a, q);
         give(a, r);
       }},

      // Made from numbers alone.
      {"zeros", 0, 2, [](A& a) { give(a, at::zeros(a.list(1), options(a, 0))); }},
      {"ones", 0, 2, [](A& a) { give(a, at::ones(a.list(1), options(a, 0))); }},
      {"full", 0, 3, [](A& a) { give(a, at::full(a.list(2), a.scalar(1), options(a, 0))); }},
      {"arange", 0, 2, [](A& a) { give(a, at::arange(a.scalar(1), options(a, 0))); }},
      {"eye", 0, 2, [](A& a) { give(a, at::eye(a.integer(1), options(a, 0))); }},
      // Numbers: dtype, generator, shape.
      {"randn", 0, 3, [](A& a) { give(a, at::randn(a.list(2), a.generator(1), options(a, 0))); }},
      {"rand", 0, 3, [](A& a) { give(a, at::rand(a.list(2), a.generator(1), options(a, 0))); }},
      {"randperm", 0, 2,
       [](A& a) {
         give(a, at::randperm(a.integer(1), a.generator(0), at::TensorOptions().dtype(at::kLong)));
       }},
      {"generator_state", 0, 1, [](A& a) { give(a, a.generator(0).get_state()); }},
      {"generator_set_state", 1, 1, [](A& a) { a.generator(0).set_state(a.t(0).contiguous()); }},

      // In place.
      {"copy_", 2, 0, [](A& a) { T(a.t(0)).copy_(a.t(1)); }},
      {"zero_", 1, 0, [](A& a) { T(a.t(0)).zero_(); }},
      {"fill_", 1, 1, [](A& a) { T(a.t(0)).fill_(a.scalar(0)); }},
      {"clamp_", 1, 4,
       [](A& a) {
         T x = a.t(0);
         clamp_into(a, x);
       }},
      {"lerp_", 2, 1, [](A& a) { T(a.t(0)).lerp_(a.t(1), a.real(0)); }},

      // Gradients.
      {"requires_grad_", 1, 1, [](A& a) { T(a.t(0)).requires_grad_(a.flag(0)); }},
      {"backward", -1, 0, [](A& a) { a.t(0).backward(a.handle_count > 1 ? a.t(1) : T()); }},
      {"grad", 1, 0,
       [](A& a) {
         if (a.t(0).grad().defined()) give(a, a.t(0).grad());
       }},
      {"set_grad", -1, 0,
       [](A& a) {
         T x = a.t(0);
         if (a.handle_count > 1 && a.t(1).sizes() != x.sizes())
           refuse("a gradient has the shape of its tensor");
         x.mutable_grad() = a.handle_count > 1 ? a.t(1).detach() : T();
       }},
      {"zero_grad", -1, 0,
       [](A& a) {
         for (int32_t i = 0; i < a.handle_count; ++i) T(a.t(i)).mutable_grad() = T();
       }},
      {"clip_grad_norm", -1, 1, clip_grad_norm},
      {"adam_step", -1, 6, adam_step},

      // Answers with numbers.
      {"item", 1, 0,
       [](A& a) {
         if (a.t(0).numel() != 1) refuse("expected exactly one element");
         a.numbers[0] = a.t(0).item<double>();
       }},

      // Fused (mlp.h and conv.h have the argument lists).
      {"lambda_return", 3, 2,
       [](A& a) { give(a, lambda_return(a.t(0), a.t(1), a.t(2), a.real(0), a.real(1))); }},
      {"mlp_forward", -1, 1, mlp_forward},
      {"mlp_regress", -1, 9, mlp_regress},
      {"conv_encode", -1, 1, conv_encode},
  };
  // Two operands, broadcasting.
  binary(table, "add", [](const T& x, const auto& y) { return at::add(x, y); });
  binary(table, "sub", [](const T& x, const auto& y) { return at::sub(x, y); });
  binary(table, "mul", [](const T& x, const auto& y) { return at::mul(x, y); });
  binary(table, "div", [](const T& x, const auto& y) { return at::div(x, y); });
  binary(table, "pow", [](const T& x, const auto& y) { return at::pow(x, y); });
  binary(table, "eq", [](const T& x, const auto& y) { return at::eq(x, y); });
  binary(table, "ne", [](const T& x, const auto& y) { return at::ne(x, y); });
  binary(table, "lt", [](const T& x, const auto& y) { return at::lt(x, y); });
  binary(table, "le", [](const T& x, const auto& y) { return at::le(x, y); });
  binary(table, "gt", [](const T& x, const auto& y) { return at::gt(x, y); });
  binary(table, "ge", [](const T& x, const auto& y) { return at::ge(x, y); });
  in_place(table, "add", [](T& x, const auto& y) { x.add_(y); });
  in_place(table, "sub", [](T& x, const auto& y) { x.sub_(y); });
  in_place(table, "mul", [](T& x, const auto& y) { x.mul_(y); });
  in_place(table, "div", [](T& x, const auto& y) { x.div_(y); });
  // One operand.
  unary(table, "neg", [](const T& x) { return x.neg(); });
  unary(table, "abs", [](const T& x) { return x.abs(); });
  unary(table, "square", [](const T& x) { return x.square(); });
  unary(table, "sqrt", [](const T& x) { return x.sqrt(); });
  unary(table, "exp", [](const T& x) { return x.exp(); });
  unary(table, "log", [](const T& x) { return x.log(); });
  unary(table, "tanh", [](const T& x) { return x.tanh(); });
  unary(table, "sigmoid", [](const T& x) { return x.sigmoid(); });
  unary(table, "sin", [](const T& x) { return x.sin(); });
  unary(table, "cos", [](const T& x) { return x.cos(); });
  unary(table, "sign", [](const T& x) { return x.sign(); });
  unary(table, "floor", [](const T& x) { return x.floor(); });
  unary(table, "elu", [](const T& x) { return at::elu(x); });
  unary(table, "relu", [](const T& x) { return x.relu(); });
  unary(table, "softplus", [](const T& x) { return at::softplus(x); });
  unary(table, "logical_not", [](const T& x) { return x.logical_not(); });
  unary(table, "isfinite", [](const T& x) { return x.isfinite(); });
  unary(table, "detach", [](const T& x) { return x.detach(); });
  unary(table, "clone", [](const T& x) { return x.clone(); });
  unary(table, "contiguous", [](const T& x) { return x.contiguous(); });
  return table;
}

}  // namespace

const std::vector<Operator>& operators() {
  static const std::vector<Operator>* table = new std::vector<Operator>(build());
  return *table;
}

}  // namespace sdpg
