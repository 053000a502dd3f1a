#include "client/inspector.h"
