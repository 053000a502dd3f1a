#include "client/publisher.h"
