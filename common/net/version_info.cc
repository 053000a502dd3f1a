#include "common/net/version_info.h"

namespace refit {

const char* SoftwareVersion() { return REFIT_VERSION; }

}  // namespace refit
