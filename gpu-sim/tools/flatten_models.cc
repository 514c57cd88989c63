// Writes compiled models as flat files (core/model/flat_model.h), for machines without protobuf:
//   flatten_models IN.model.binpb OUT.flat ...
// gpu-sim/tools/gpu_check.sh reads those of gpu-sim/tests/data; the README there says how they are
// made.
#include <cstdio>
#include <fstream>
#include <sstream>

#include "core/kernels.h"
#include "core/model/flat_model.h"
#include "sdpg/model/v1/model.pb.h"

int main(int argc, char** argv) {
  if (argc < 3 || argc % 2 == 0) {
    std::fprintf(stderr, "flatten_models IN.model.binpb OUT.flat ...\n");
    return 2;
  }
  for (int i = 1; i < argc; i += 2) {
    std::ifstream in(argv[i], std::ios::binary);
    std::stringstream bytes;
    bytes << in.rdbuf();
    sdpg::model::v1::Model message;
    std::string error;
    if (!in || !message.ParseFromString(bytes.str())) {
      std::fprintf(stderr, "flatten_models: %s is no sdpg.model.v1.Model\n", argv[i]);
      return 1;
    }
    const auto model = sdpg::core::make_model(message, &error);
    if (!model) {
      std::fprintf(stderr, "flatten_models: %s: %s\n", argv[i], error.c_str());
      return 1;
    }
    const std::string flat = save_flat_model(flatten_model(*model));
    std::ofstream out(argv[i + 1], std::ios::binary);
    out.write(flat.data(), static_cast<std::streamsize>(flat.size()));
    if (!out.flush()) {
      std::fprintf(stderr, "flatten_models: cannot write %s\n", argv[i + 1]);
      return 1;
    }
  }
  return 0;
}
