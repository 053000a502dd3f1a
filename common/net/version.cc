#include "refit/version.h"

namespace refit {

const char* SoftwareVersion() { return REFIT_VERSION_STRING; }

}  // namespace refit
