//! The part of a page that shows images, which the run's next page takes over.

/// Markers before the part (with the training steps of the encoder) and after it.
const BEGIN: &str = "<!-- images, of step ";
const BEGUN: &str = " -->\n";
const END: &str = "<!-- end of images -->\n";

/// Puts markers around `part`, HTML, so that [`find`] finds it; empty if it is empty.
pub(super) fn marked(step: u64, part: &str) -> String {
    if part.is_empty() { String::new() } else { format!("{BEGIN}{step}{BEGUN}{part}{END}") }
}

/// Finds the part of a page and its step.
pub(crate) fn find(page: &str) -> Option<(u64, &str)> {
    let (step, rest) = page.split_once(BEGIN)?.1.split_once(BEGUN)?;
    Some((step.parse().ok()?, rest.split_once(END)?.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_marked_is_found() {
        let page = format!("<h1>a</h1>{}<p>b</p>", marked(7, "<section>\n</section>\n"));
        assert_eq!(find(&page), Some((7, "<section>\n</section>\n")));
        assert_eq!(find(&page.replace("step 7", "step x")), None);
        assert_eq!(find(&page[..40]), None);
        assert_eq!((marked(7, ""), find("<h1>a</h1>")), (String::new(), None));
    }
}
