#include "common/net/status.h"
