#include "common/net/raw_call.h"
