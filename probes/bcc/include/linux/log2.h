/* SPDX-License-Identifier: GPL-2.0 */
#ifndef SLTRACE_BCC_LINUX_LOG2_H
#define SLTRACE_BCC_LINUX_LOG2_H

#include <linux/types.h>

#endif
