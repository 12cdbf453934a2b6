//! `history`: how an image came to be, the newest step first.

use proto::engine::HistoryItem;

use super::{Images, unix};
use crate::error::Result;

impl Images {
    /// The steps; only the newest has an id, for older ones are not kept as images.
    pub(crate) async fn history(&self, text: &str) -> Result<Vec<HistoryItem>> {
        let named = self.resolve(text).await?;
        let group = self.group(&named.image).await?;
        let image = &group.image;
        let mut layers = image.chain.iter();
        let mut items = Vec::new();
        for step in image.file.history.iter().flatten() {
            let size = match layers.next_if_layer(step.empty_layer) {
                Some(name) => self.layer_size(name).await?,
                None => 0,
            };
            items.push(HistoryItem {
                comment: step.comment.clone().unwrap_or_default(),
                created: unix(step.created.as_deref()),
                created_by: step.created_by.clone().unwrap_or_default(),
                id: "<missing>".into(),
                size,
                tags: None,
            });
        }
        // Layers that no step speaks of, as in images made by tools that write no history.
        for name in layers {
            items.push(HistoryItem {
                id: "<missing>".into(),
                size: self.layer_size(name).await?,
                ..HistoryItem::default()
            });
        }
        items.reverse();
        if let Some(newest) = items.first_mut() {
            newest.id.clone_from(&image.id);
            newest.tags = Some(group.tags()).filter(|tags| !tags.is_empty());
        }
        Ok(items)
    }
}

/// Takes the next layer unless the step has none.
trait NextIfLayer<'a> {
    fn next_if_layer(&mut self, empty: bool) -> Option<&'a String>;
}

impl<'a> NextIfLayer<'a> for std::slice::Iter<'a, String> {
    fn next_if_layer(&mut self, empty: bool) -> Option<&'a String> {
        if empty { None } else { self.next() }
    }
}
