// SPDX-License-Identifier: GPL-2.0
/*
 * Does one thing wrong, so that the kernel complains: `cargo xtask splats` loads this and
 * sees whether the rules for the kernel's log find it. plant= says what; ci/splats.toml
 * lists what there is, and which rule has to find it.
 *
 * What ends the kernel anyway leaves everything as it is. The rest cleans up where a second
 * complaint would follow.
 */
#include <linux/completion.h>
#include <linux/delay.h>
#include <linux/gfp.h>
#include <linux/irq_work.h>
#include <linux/kmemleak.h>
#include <linux/kthread.h>
#include <linux/list.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/rcupdate.h>
#include <linux/refcount.h>
#include <linux/rwsem.h>
#include <linux/sched/signal.h>
#include <linux/slab.h>
#include <linux/spinlock.h>
#include <linux/workqueue.h>

static char *plant;
module_param(plant, charp, 0444);
MODULE_PARM_DESC(plant, "What to do wrong");

static int seconds = 15;
module_param(seconds, int, 0444);
MODULE_PARM_DESC(seconds, "How long to hang, where that is it");

/* The kernel dies */

static void plant_bug(void)
{
	BUG();
}

static void plant_panic(void)
{
	panic("planted");
}

static void plant_oops(void)
{
	asm volatile("divl %2" : : "a" (1), "d" (0), "r" (0) : "cc");
}

/* KASAN would be there first. */
static noinline __no_sanitize_address void read_at(unsigned long address)
{
	READ_ONCE(*(int *)address);
}

static void plant_page_fault(void)
{
	read_at(8);
}

static void plant_page_fault_wild(void)
{
	read_at((unsigned long)-PAGE_SIZE * 16);
}

static void plant_general_protection(void)
{
	read_at(0xdead000000000000UL);
}

static void plant_list_corruption(void)
{
	LIST_HEAD(list);
	LIST_HEAD(stray);
	struct list_head entry;

	list.next = &stray;
	list_add_tail(&entry, &list);
}

/* The kernel warns */

static void plant_warning(void)
{
	WARN(1, "planted\n");
}

static void plant_warning_silent(void)
{
	WARN_ON_ONCE(plant);
}

static void plant_call_trace(void)
{
	dump_stack();
}

static void plant_bug_other(void)
{
	/* Told when this process has gone. */
	mm_inc_nr_ptes(current->mm);
}

/* Memory */

static void plant_kasan(void)
{
	int *p = kzalloc(sizeof(*p), GFP_KERNEL);

	if (!p)
		return;
	kfree(p);
	READ_ONCE(*p);
}

static void plant_kasan_bounds(void)
{
	char *p = kzalloc(24, GFP_KERNEL);

	if (!p)
		return;
	OPTIMIZER_HIDE_VAR(p);
	WRITE_ONCE(p[24], 1);
	kfree(p);
}

static noinline void forget(void)
{
	void *p = kzalloc(200, GFP_KERNEL);

	OPTIMIZER_HIDE_VAR(p);
}

static void plant_kmemleak(void)
{
	/* The address of one may be left in a register or on a stack. */
	for (int i = 0; i < 16; i++)
		forget();
}

static void plant_kmemleak_off(void)
{
	void *p = kzalloc(200, GFP_KERNEL);

	/* It has seen that one. */
	kmemleak_alloc(p, 200, 1, GFP_KERNEL);
	kfree(p);
}

static void plant_refcount(void)
{
	refcount_t count = REFCOUNT_INIT(1);

	if (refcount_dec_and_test(&count))
		refcount_inc(&count);
}

static void plant_refcount_underflow(void)
{
	refcount_t count = REFCOUNT_INIT(0);

	if (refcount_dec_and_test(&count))
		pr_info("not below 0\n");
}

static noinline __no_sanitize_address void write_at(char *address)
{
	WRITE_ONCE(*address, 1);
}

/* With slab_debug=FZ */
static void plant_slab_corruption(void)
{
	struct kmem_cache *cache = kmem_cache_create("planted", 64, 0, 0, NULL);
	char *p;

	if (!cache)
		return;
	p = kmem_cache_alloc(cache, GFP_KERNEL);
	if (p) {
		write_at(p + 64);
		kmem_cache_free(cache, p);
	}
	/* until then KASAN keeps what is freed from being looked at */
	kmem_cache_destroy(cache);
}

static void plant_page_corruption(void)
{
	/* Told when this process has gone. */
	percpu_counter_add(&current->mm->rss_stat[MM_ANONPAGES], 1);
}

static void free_pages_of(struct list_head *pages, unsigned int order)
{
	struct page *page, *next;

	list_for_each_entry_safe(page, next, pages, lru)
		__free_pages(page, order);
}

static void plant_page_allocation(void)
{
	LIST_HEAD(pages);
	struct page *page;

	while ((page = alloc_pages(GFP_ATOMIC, MAX_PAGE_ORDER)))
		list_add(&page->lru, &pages);
	free_pages_of(&pages, MAX_PAGE_ORDER);
}

static void plant_out_of_memory(void)
{
	LIST_HEAD(pages);
	struct page *page;

	/* Until this process is the one that is killed. */
	while (!fatal_signal_pending(current) &&
	       (page = alloc_pages(GFP_KERNEL, 3)))
		list_add(&page->lru, &pages);
	free_pages_of(&pages, 3);
}

/* Undefined behaviour */

static void plant_ubsan_shift(void)
{
	int by = 40, one = 1;

	OPTIMIZER_HIDE_VAR(by);
	OPTIMIZER_HIDE_VAR(one);
	one <<= by;
	OPTIMIZER_HIDE_VAR(one);
}

static struct {
	int array[4], after[4];
} object;

static void plant_ubsan_bounds(void)
{
	int index = 5;

	OPTIMIZER_HIDE_VAR(index);
	WRITE_ONCE(object.array[index], 1);
}

/* Locks */

static DEFINE_MUTEX(first_mutex);
static DEFINE_MUTEX(second_mutex);
static DEFINE_SPINLOCK(first_lock);
static DEFINE_SPINLOCK(second_lock);
static DEFINE_RAW_SPINLOCK(raw_lock);

static void plant_lockdep(void)
{
	mutex_lock(&first_mutex);
	mutex_lock(&second_mutex);
	mutex_unlock(&second_mutex);
	mutex_unlock(&first_mutex);

	mutex_lock(&second_mutex);
	mutex_lock(&first_mutex);
	mutex_unlock(&first_mutex);
	mutex_unlock(&second_mutex);
}

static void plant_lockdep_recursive(void)
{
	struct rw_semaphore one, other;

	/* One class, for it is one place. */
	for (int i = 0; i < 2; i++)
		init_rwsem(i ? &one : &other);
	down_write(&one);
	down_write(&other);
	up_write(&other);
	up_write(&one);
}

static void take_first(struct irq_work *work)
{
	spin_lock(&first_lock);
	spin_unlock(&first_lock);
}

static struct irq_work interrupt = IRQ_WORK_INIT_HARD(take_first);

static void first_in_interrupt(void)
{
	irq_work_queue(&interrupt);
	irq_work_sync(&interrupt);
}

static void plant_lockdep_inconsistent(void)
{
	first_in_interrupt();
	spin_lock(&first_lock);
	spin_unlock(&first_lock);
}

static void plant_lockdep_irq_order(void)
{
	first_in_interrupt();
	spin_lock(&second_lock);
	spin_unlock(&second_lock);

	spin_lock_irq(&first_lock);
	spin_lock(&second_lock);
	spin_unlock(&second_lock);
	spin_unlock_irq(&first_lock);
}

static void plant_lockdep_unlock(void)
{
	mutex_unlock(&first_mutex);
}

static void plant_lockdep_freed(void)
{
	struct mutex *mutex = kmalloc_obj(*mutex);

	if (!mutex)
		return;
	mutex_init(mutex);
	mutex_lock(mutex);
	kfree(mutex);
}

#ifdef CONFIG_DEBUG_SPINLOCK
static void plant_lockdep_key(void)
{
	spinlock_t *lock = kzalloc(sizeof(*lock), GFP_KERNEL);

	if (!lock)
		return;
	lock->rlock.magic = SPINLOCK_MAGIC;
	lock->rlock.owner = SPINLOCK_OWNER_INIT;
	lock->rlock.owner_cpu = -1;
	spin_lock(lock);
	spin_unlock(lock);
	kfree(lock);
}
#endif

static void plant_lockdep_user(void)
{
	mutex_lock(&first_mutex);
}

static void plant_lockdep_wait_context(void)
{
	raw_spin_lock(&raw_lock);
	spin_lock(&first_lock);
	spin_unlock(&first_lock);
	raw_spin_unlock(&raw_lock);
}

static void plant_lockdep_debug_locks(void)
{
	struct mutex copy = first_mutex;

	mutex_lock(&copy);
	mutex_unlock(&copy);
}

#ifdef CONFIG_LOCKDEP
static void plant_lockdep_off(void)
{
	static struct lock_class_key keys[MAX_LOCK_DEPTH + 1];
	static raw_spinlock_t locks[MAX_LOCK_DEPTH + 1];
	int i;

	for (i = 0; i < ARRAY_SIZE(locks); i++) {
		raw_spin_lock_init(&locks[i]);
		lockdep_set_class(&locks[i], &keys[i]);
	}
	for (i = 0; i < ARRAY_SIZE(locks); i++)
		raw_spin_lock(&locks[i]);
	while (i--)
		raw_spin_unlock(&locks[i]);
}
#endif

static void plant_suspicious_rcu(void)
{
	static int __rcu *pointer;

	rcu_dereference(pointer);
}

static void plant_atomic_sleep(void)
{
	spin_lock(&first_lock);
	msleep(20);
	spin_unlock(&first_lock);
}

static void plant_atomic_sleep_schedule(void)
{
	preempt_disable();
	schedule();
	preempt_enable();
}

static void plant_atomic_sleep_rcu(void)
{
	rcu_read_lock();
	schedule();
	rcu_read_unlock();
}

static void leave_locked(struct work_struct *work)
{
	mutex_lock(&first_mutex);
}

static void plant_workqueue_leaked(void)
{
	static DECLARE_WORK(work, leave_locked);

	schedule_work(&work);
	flush_work(&work);
}

/* Hangs */

static void spin(void)
{
	for (int i = 0; i < seconds * 1000; i++)
		mdelay(1);
}

static void no_callback(struct rcu_head *unused)
{
}

/*
 * With rcupdate.rcu_cpu_stall_timeout= below `seconds`. Only a grace period can stall, and
 * another processor has to begin it.
 */
static void plant_rcu_stall(void)
{
	static struct rcu_head head;

	call_rcu(&head, no_callback);
	rcu_read_lock();
	preempt_disable();
	spin();
	preempt_enable();
	rcu_read_unlock();
}

/* With sysctl.kernel.watchdog_thresh= below half of `seconds` */
static void plant_soft_lockup(void)
{
	preempt_disable();
	spin();
	preempt_enable();
}

static DECLARE_COMPLETION(end);

static int sleep(void *unused)
{
	wait_for_completion(&end);
	return 0;
}

/* With sysctl.kernel.hung_task_timeout_secs= below half of `seconds` */
static void plant_hung_task(void)
{
	struct task_struct *task = kthread_run(sleep, NULL, "planted");

	if (IS_ERR(task))
		return;
	ssleep(seconds);
	complete(&end);
}

/* Data races */

static int shared;

static int write_shared(void *unused)
{
	while (!kthread_should_stop()) {
		shared++;
		cond_resched();
	}
	return 0;
}

static void plant_kcsan(void)
{
	struct task_struct *task = kthread_run(write_shared, NULL, "planted");
	ktime_t until = ktime_add_ms(ktime_get(), seconds * 1000);

	if (IS_ERR(task))
		return;
	while (ktime_before(ktime_get(), until)) {
		shared++;
		cond_resched();
	}
	kthread_stop(task);
}

/* To see that the module alone makes nobody complain. */
static void plant_nothing(void)
{
}

#define PLANT(name_, does) { .name = (name_), .plant = (does) }

static const struct {
	const char *name;
	void (*plant)(void);
} plants[] = {
	PLANT("nothing", plant_nothing),
	PLANT("bug", plant_bug),
	PLANT("panic", plant_panic),
	PLANT("oops", plant_oops),
	PLANT("page-fault", plant_page_fault),
	PLANT("page-fault.wild", plant_page_fault_wild),
	PLANT("general-protection", plant_general_protection),
	PLANT("list-corruption", plant_list_corruption),
	PLANT("warning", plant_warning),
	PLANT("warning.silent", plant_warning_silent),
	PLANT("call-trace", plant_call_trace),
	PLANT("bug-other", plant_bug_other),
	PLANT("kasan", plant_kasan),
	PLANT("kasan.bounds", plant_kasan_bounds),
	PLANT("kmemleak", plant_kmemleak),
	PLANT("kmemleak-off", plant_kmemleak_off),
	PLANT("refcount", plant_refcount),
	PLANT("refcount.underflow", plant_refcount_underflow),
	PLANT("slab-corruption", plant_slab_corruption),
	PLANT("page-corruption", plant_page_corruption),
	PLANT("page-allocation", plant_page_allocation),
	PLANT("out-of-memory", plant_out_of_memory),
	PLANT("ubsan.shift", plant_ubsan_shift),
	PLANT("ubsan.bounds", plant_ubsan_bounds),
	PLANT("lockdep", plant_lockdep),
	PLANT("lockdep.recursive", plant_lockdep_recursive),
	PLANT("lockdep.inconsistent", plant_lockdep_inconsistent),
	PLANT("lockdep.irq-order", plant_lockdep_irq_order),
	PLANT("lockdep.unlock", plant_lockdep_unlock),
	PLANT("lockdep.freed", plant_lockdep_freed),
#ifdef CONFIG_DEBUG_SPINLOCK
	PLANT("lockdep.key", plant_lockdep_key),
#endif
	PLANT("lockdep.user", plant_lockdep_user),
	PLANT("lockdep.wait-context", plant_lockdep_wait_context),
	PLANT("lockdep.debug-locks", plant_lockdep_debug_locks),
#ifdef CONFIG_LOCKDEP
	PLANT("lockdep-off", plant_lockdep_off),
#endif
	PLANT("suspicious-rcu", plant_suspicious_rcu),
	PLANT("atomic-sleep", plant_atomic_sleep),
	PLANT("atomic-sleep.schedule", plant_atomic_sleep_schedule),
	PLANT("atomic-sleep.rcu", plant_atomic_sleep_rcu),
	PLANT("workqueue.leaked", plant_workqueue_leaked),
	PLANT("rcu-stall", plant_rcu_stall),
	PLANT("soft-lockup", plant_soft_lockup),
	PLANT("hung-task", plant_hung_task),
	PLANT("kcsan", plant_kcsan),
};

static int __init splat_init(void)
{
	for (int i = 0; i < ARRAY_SIZE(plants); i++) {
		if (plant && !strcmp(plants[i].name, plant)) {
			plants[i].plant();
			return 0;
		}
	}
	return -EINVAL;
}
module_init(splat_init);

MODULE_DESCRIPTION("Complaints of the kernel, to order");
MODULE_LICENSE("GPL");
