// Alone in its file, so that a new commit rebuilds nothing else.
#include "server/version.h"

namespace sdpg::server {

const char* version() { return SDPG_VERSION; }

}  // namespace sdpg::server
