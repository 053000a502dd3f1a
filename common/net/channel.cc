#include "common/net/channel.h"
