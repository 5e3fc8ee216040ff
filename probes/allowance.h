/* SPDX-License-Identifier: GPL-2.0 */
/* At most so many a second, on average. */
#ifndef SLTRACE_ALLOWANCE_H
#define SLTRACE_ALLOWANCE_H

#define ALLOWANCE_SAVED_NS 100000000ULL

/*
 * Each use is paid for with `each_ns`, its share of a second; 0 is for nothing. What was not used
 * can be saved up: who is far below the rate does what it does in bursts of a few milliseconds.
 */
static __always_inline bool allowance_take(u64 *paid_until_ns, u64 each_ns, u64 now)
{
	if (!each_ns)
		return true;
	if (*paid_until_ns + ALLOWANCE_SAVED_NS < now)
		*paid_until_ns = now - ALLOWANCE_SAVED_NS;
	if (*paid_until_ns > now)
		return false;
	*paid_until_ns += each_ns;
	return true;
}

#endif
