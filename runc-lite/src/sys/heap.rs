//! The heap of a process that lives for milliseconds: pieces of one arena, one
//! after another.
//!
//! A general allocator is made for programs that run for days. Here it cost a
//! tenth of the processor time of a run, half of that in page faults: giving a
//! piece back writes into pages that the child has got a copy-on-write view of by
//! then. So what is given back is used again only if it was the last piece
//! (strings of messages and paths are), and otherwise is left to the end of the
//! process. Whatever does not fit in the arena comes from the C library and goes
//! back there, so that commands that stay (`run`, `exec`, `events`, the init) do
//! not grow.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::UnsafeCell;
use std::sync::atomic::{AtomicUsize, Ordering};

const SIZE: usize = 512 * 1024;

#[repr(C, align(4096))]
struct Arena(UnsafeCell<[u8; SIZE]>);

// SAFETY: the bytes are only reached through pieces that NEXT gave to one owner
// each.
unsafe impl Sync for Arena {}

static ARENA: Arena = Arena(UnsafeCell::new([0; SIZE]));
/// Where the unused rest of the arena begins.
static NEXT: AtomicUsize = AtomicUsize::new(0);

/// How much of the arena, and of the stack below the caller, [`prefault`] has made
/// ready: about what making a container's process takes of each.
const AHEAD: usize = 28 * PAGE;
const STACK_AHEAD: usize = 10 * PAGE;
const PAGE: usize = 4096;

/// Has the next pages of arena and stack made at once. Touching them one by one is a
/// fault each, and those were an eighth of the processor time of a run.
pub(crate) fn prefault() {
    let here = 0_u8;
    let stack = (&raw const here as usize) & !(PAGE - 1);
    let next = NEXT.load(Ordering::Relaxed).next_multiple_of(PAGE);
    let arena = ARENA.0.get() as usize + next.min(SIZE - AHEAD);
    for (start, length) in [(arena, AHEAD), (stack - STACK_AHEAD, STACK_AHEAD)] {
        // SAFETY: makes pages present that the process owns, and changes nothing in
        // them. What is not mapped, or on kernels before 5.14, is an error that does
        // not matter: the pages come when they are touched.
        unsafe { libc::madvise(start as *mut libc::c_void, length, MADV_POPULATE_WRITE) };
    }
}

/// Missing in the libc crate for musl.
const MADV_POPULATE_WRITE: libc::c_int = 23;

#[global_allocator]
static HEAP: Heap = Heap;

struct Heap;

impl Heap {
    /// The place of a piece in the arena, if it is there.
    fn offset(piece: *mut u8) -> Option<usize> {
        let offset = (piece as usize).wrapping_sub(ARENA.0.get() as usize);
        (offset < SIZE).then_some(offset)
    }

    /// Moves the end of the last piece; false if it is not the last.
    fn move_end(from: usize, to: usize) -> bool {
        NEXT.compare_exchange(from, to, Ordering::AcqRel, Ordering::Relaxed)
            .is_ok()
    }
}

// SAFETY: a piece begins at a multiple of its alignment (the arena's own start is
// one of 4096, and larger alignments are the C library's), is at least as long as
// asked for, and no two pieces overlap: NEXT only ever moves by one exchange from
// the end of one piece to the end of the next, or back over a piece whose owner
// has given it up.
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let mut end = NEXT.load(Ordering::Relaxed);
        while layout.align() <= 4096 {
            let start = end.next_multiple_of(layout.align());
            // A layout's size is at most isize::MAX, so this cannot wrap.
            let new = start + layout.size();
            if new > SIZE {
                break;
            }
            match NEXT.compare_exchange_weak(end, new, Ordering::AcqRel, Ordering::Relaxed) {
                // SAFETY: start is below SIZE, so the pointer stays in the arena.
                Ok(_) => return unsafe { ARENA.0.get().cast::<u8>().add(start) },
                Err(now) => end = now,
            }
        }
        // SAFETY: the caller's promise about the layout is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, piece: *mut u8, layout: Layout) {
        match Self::offset(piece) {
            Some(offset) => {
                Self::move_end(offset + layout.size(), offset);
            }
            // SAFETY: not from the arena, so it is what System gave for this layout.
            None => unsafe { System.dealloc(piece, layout) },
        }
    }

    unsafe fn realloc(&self, piece: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        let Some(offset) = Self::offset(piece) else {
            // SAFETY: not from the arena, so it is what System gave for this layout.
            return unsafe { System.realloc(piece, layout, size) };
        };
        let (end, new) = (offset + layout.size(), offset.saturating_add(size));
        if new <= SIZE && (Self::move_end(end, new) || new <= end) {
            return piece;
        }
        // SAFETY: the caller promises that this size, rounded up to the alignment,
        // does not overflow.
        let layout_new = unsafe { Layout::from_size_align_unchecked(size, layout.align()) };
        // SAFETY: realloc is called with a size above zero.
        let to = unsafe { self.alloc(layout_new) };
        if !to.is_null() {
            // SAFETY: both are valid for the length of the shorter, the old one, as
            // a shorter new one has been dealt with; they are different pieces.
            unsafe { std::ptr::copy_nonoverlapping(piece, to, layout.size().min(size)) };
            // SAFETY: the caller gives the old piece up by this call.
            unsafe { self.dealloc(piece, layout) };
        }
        to
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    #[test]
    fn pieces_of_all_sizes_hold_what_is_put_in_them() {
        let kept = Mutex::new(Vec::new());
        std::thread::scope(|s| {
            for seed in 1..5_usize {
                let kept = &kept;
                s.spawn(move || {
                    for i in 0..3000 {
                        let value = (seed * 7 + i) as u8;
                        let mut piece = vec![value; i % 700];
                        piece.extend(std::iter::repeat_n(value, seed * i % 300));
                        if i % 3 == 0 {
                            kept.lock().unwrap().push((value, piece));
                        }
                    }
                });
            }
        });
        for (value, piece) in kept.into_inner().unwrap() {
            assert!(piece.iter().all(|b| *b == value));
        }
    }

    #[test]
    fn alignment_is_kept_above_a_page_too() {
        #[repr(align(8192))]
        struct Wide(u8);
        for _ in 0..3 {
            let one = Box::new(Wide(1));
            assert_eq!(std::ptr::from_ref(&*one) as usize % 8192, 0);
            assert_eq!(one.0, 1);
        }
    }
}
