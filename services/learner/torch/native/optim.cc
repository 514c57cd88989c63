// Adam and clipping; see optim.h.

#include "optim.h"

#include <cmath>

namespace sdpg {

namespace {

bool plain(const at::Tensor& t) {
  return t.scalar_type() == at::kFloat && t.device().is_cpu() && t.is_contiguous();
}

}  // namespace

AdamCoefficients adam_coefficients(const AdamOptions& options) {
  const double correction1 = 1 - std::pow(options.beta1, static_cast<double>(options.step));
  const double correction2 = 1 - std::pow(options.beta2, static_cast<double>(options.step));
  return {static_cast<float>(options.lr / correction1),
          static_cast<float>(options.beta1),
          static_cast<float>(options.beta2),
          static_cast<float>(1 - options.beta1),
          static_cast<float>(1 - options.beta2),
          static_cast<float>(std::sqrt(correction2)),
          static_cast<float>(options.eps),
          static_cast<float>(options.weight_decay)};
}

void adam_update(at::Tensor parameter, const at::Tensor& gradient, at::Tensor m, at::Tensor v,
                 const AdamOptions& options) {
  if (plain(parameter) && plain(gradient) && plain(m) && plain(v)) {
    kernels().adam(parameter.data_ptr<float>(), gradient.data_ptr<float>(), m.data_ptr<float>(),
                   v.data_ptr<float>(), parameter.numel(), adam_coefficients(options));
    parameter.unsafeGetTensorImpl()->bump_version();
    return;
  }
  const double correction1 = 1 - std::pow(options.beta1, static_cast<double>(options.step));
  const double correction2 = 1 - std::pow(options.beta2, static_cast<double>(options.step));
  const at::Tensor g =
      options.weight_decay != 0 ? gradient.add(parameter.detach(), options.weight_decay) : gradient;
  m.mul_(options.beta1).add_(g, 1 - options.beta1);
  v.mul_(options.beta2).addcmul_(g, g, 1 - options.beta2);
  const at::Tensor denominator = v.sqrt().div_(std::sqrt(correction2)).add_(options.eps);
  parameter.addcdiv_(m, denominator, -options.lr / correction1);
}

double sum_of_squares(const at::Tensor& gradient) {
  if (plain(gradient))
    return kernels().sum_of_squares(gradient.data_ptr<float>(), gradient.numel());
  return gradient.detach().to(at::kDouble).square().sum().item<double>();
}

double clip_scale(double norm, double max_norm) {
  const double scale = max_norm / (norm + 1e-6);
  return scale < 1 ? scale : 1;
}

}  // namespace sdpg
