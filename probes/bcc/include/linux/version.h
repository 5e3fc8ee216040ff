/* SPDX-License-Identifier: GPL-2.0 */
/* Of a kernel that has all of BCC's helpers the probes use (ring buffers: 5.8). */
#ifndef SLTRACE_BCC_LINUX_VERSION_H
#define SLTRACE_BCC_LINUX_VERSION_H

#define KERNEL_VERSION(major, minor, patch) (((major) << 16) + ((minor) << 8) + (patch))
#define LINUX_VERSION_CODE                  KERNEL_VERSION(5, 8, 0)

#endif
