/* SPDX-License-Identifier: GPL-2.0 */
#ifndef SLTRACE_BCC_ASM_PAGE_H
#define SLTRACE_BCC_ASM_PAGE_H

#include <linux/types.h>

#endif
