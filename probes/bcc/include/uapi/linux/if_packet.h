/* SPDX-License-Identifier: GPL-2.0 */
#ifndef SLTRACE_BCC_UAPI_LINUX_IF_PACKET_H
#define SLTRACE_BCC_UAPI_LINUX_IF_PACKET_H

#include <linux/types.h>

#endif
