/* SPDX-License-Identifier: GPL-2.0 */
/* BCC gives this to the compiler first, and takes a tree that has it for kernel headers. */
