#include "common/net/messages.h"
