/* SPDX-License-Identifier: MIT */
/*
 * The page protocol, for spin: two frames, a clock that evicts, and faults that drop the map lock,
 * read, and try again. spin runs all schedules.
 *
 * The model has the page lock, pins, uptodate, installed, GONE and free. A look-up pins a frame
 * and looks again. A fault carries its pin from try to try. The model has no wake-ups, tickets,
 * errors or deadlines, and only one file: the simulator tests these. A step of the model is one
 * compare-and-swap of src/mm on a state word, or one step under the page lock.
 *
 *   spin -search -O2 -safety sim/page_protocol.pml   no error; also with -DONE_FRAME
 *   spin -DNO_CARRIED_PIN -search ...                each time the page goes between the tries
 *                                                    (HAZARDS A5)
 *   spin -DNO_IDENTITY_CHECK -search ...             a look-up gets another page
 *   spin -DNO_GONE_CHECK -search ...                 a fault serves a page that has left the cache
 *                                                    (HAZARDS A10)
 * test_spin.sh runs all five commands.
 */
#define NONE 255
#define FAULTS 3
/* a fault needs more tries only if each try's page is lost before the next try */
#define TRIES_MAX 6
#define is(f, page) (identity[f] == page && !free[f] && !gone[f])

bool locked[2], uptodate[2], installed[2], gone[2], free[2]; /* of each frame */
byte pins[2], identity[2];                                   /* which page the frame has */
byte view[2];                                                /* which frame shows a page */
byte served;

/* page_unpin(): the last pin of a page that is out of the index frees the frame. */
inline unpin(f)
{
	d_step {
		assert(pins[f] > 0);
		pins[f]--;
		if
		:: gone[f] && pins[f] == 0 && !locked[f] ->
			assert(!installed[f] && !free[f]);
			gone[f] = false; uptodate[f] = false; free[f] = true; identity[f] = NONE
		:: else
		fi
	}
}

/* page_find(): look the page up in the chain, pin the frame if the frame is not free, and then
 * check the frame's page once more. */
inline find(page, f)
{
	d_step { if :: is(0, page) -> f = 0 :: is(1, page) -> f = 1 :: else -> f = NONE fi }
	if
	:: f == NONE
	:: else ->
		if
		:: d_step { !free[f] -> pins[f]++ }
#ifndef NO_IDENTITY_CHECK
			if
			:: is(f, page)
			:: else -> unpin(f); f = NONE
			fi
#endif
		:: free[f] -> f = NONE
		fi
	fi
}

/* page_add(), under the bucket's lock: a free frame becomes the page, pinned and not read.
 * Otherwise f stays NONE, and the caller looks again. */
inline add(page, f)
{
	d_step {
		if
		:: !is(0, page) && !is(1, page) && (free[0] || free[1]) ->
			f = (free[0] -> 0 : 1);
			free[f] = false; identity[f] = page; pins[f] = 1
		:: else
		fi
	}
}

proctype fault(byte page)
{
	byte f = NONE, tries = 0;
	do
	:: f == NONE ->
		(is(0, page) || is(1, page) || free[0] || free[1]); /* frame_wait() */
		find(page, f);
		if :: f == NONE -> add(page, f) :: else fi
	:: else ->
		d_step { !locked[f] -> locked[f] = true } /* or the wait, and the next try */
		if
#ifndef NO_GONE_CHECK
		:: gone[f] -> locked[f] = false; unpin(f); f = NONE
#endif
		:: !uptodate[f] && !(gone[f]) -> /* without the map lock: read, unlock, RETRY */
			tries++;
			assert(tries <= TRIES_MAX);
			uptodate[f] = true;
			locked[f] = false;
#ifdef NO_CARRIED_PIN
			unpin(f); f = NONE
#endif
		:: else -> break
		fi
	od;
	assert(is(f, page) && uptodate[f]); /* LOCKED */
	d_step { if :: !installed[f] -> assert(view[page] == NONE); installed[f] = true; view[page] = f :: else fi }
	locked[f] = false;
	unpin(f);
	served++
}

/* deactivate_run(), evict_page(): a page without other pins leaves the view, then the index. */
proctype clock()
{
	byte f;
	do
	:: served == FAULTS -> break
	:: else ->
		if :: f = 0 :: f = 1 fi;
		if
		:: d_step { !free[f] && !locked[f] && !gone[f] -> pins[f]++ }
			if
			:: d_step { !locked[f] -> locked[f] = true }
				if
				:: gone[f] || pins[f] > 1
				:: else ->
					d_step { if :: installed[f] -> installed[f] = false; view[identity[f]] = NONE :: else fi }
					gone[f] = true
				fi;
				locked[f] = false
			:: else
			fi;
			unpin(f)
		:: else
		fi
	od
}

init
{
	d_step { free[0] = true; identity[0] = NONE; identity[1] = NONE; view[0] = NONE; view[1] = NONE }
#ifndef ONE_FRAME
	free[1] = true;
#endif
	atomic { run fault(0); run fault(0); run fault(1); run clock() }
}
