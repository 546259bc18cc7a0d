//! Lists of view operators in the configuration: `[[view.a]]`, `[[view.b]]`.

mod common;

use common::with_sets;
use simclr_augment::ViewOp;
use simclr_train::{Config, Layers};

const LISTS: &str = r#"
[data]
image_size = 32

[[view.a]]
op = "random_resized_crop"
area = [0.2, 1]

[[view.a]]
op = "cutout"
prob = 0.5

[[view.b]]
op = "gaussian_blur"
"#;

#[test]
fn branches_have_lists_of_their_own() {
    let config = Config::from_toml(LISTS, "lists.toml").unwrap();
    let [a, b] = config.view.families(32).unwrap();
    let words = |family: &simclr_augment::ViewFamily, index| {
        let mut stream = simclr_augment::Stream::new(1, 0, index, 0);
        family.draw(64, 64, &mut stream).describe()
    };
    assert!((0..20).any(|index| words(&a, index).last().is_some_and(|last| last.starts_with("cutout"))));
    // Without a crop at the start of the list, the whole image. No blur at 32 pixels unless its probability is given.
    assert!((0..20).all(|index| words(&b, index) == ["crop 100%", "aspect 1.00"]));
    let again = Config::from_toml(&config.to_toml().unwrap(), "config.toml").unwrap();
    assert_eq!(again, config);
    let auto = with_sets(&["view.a=auto", "view.preset=simclr-v1"]).unwrap();
    assert_eq!(auto.view.a, None);
    assert_eq!(auto.view.ops(224).len(), 5);
}

/// The operators of the paper's views, by their names alone.
const BARE: &str = "view.a=[{op='random_resized_crop'}, {op='horizontal_flip'}, {op='color_jitter'}, {op='grayscale'}, {op='gaussian_blur'}]";

#[test]
fn what_a_list_leaves_out_is_as_the_keys_of_the_views_say() {
    let keys = [
        "data.image_size=96",
        "view.crop_area=[0.3, 0.9]",
        "view.crop_aspect=[0.5, 1.5]",
        "view.crop_aspect_law=log_uniform",
        "view.flip=0.25",
        "view.color_strength=0.4",
        "view.color_prob=0.7",
        "view.brightness=additive",
        "view.gray_prob=0.1",
        "view.blur_prob=0.6",
        "view.blur_sigma=[0.2, 1.0]",
        "view.blur_padding=reflect",
    ];
    // Wherever the list stands among them.
    let config = with_sets(&[&[BARE][..], &keys].concat()).unwrap();
    assert_eq!(config.view.a, Some(config.view.ops(96)));
    assert_ne!(config.view.a, with_sets(&[BARE]).unwrap().view.a);
    let also = |size: &str| with_sets(&[BARE, size]).unwrap().view.a;
    let usual = |size: &str| with_sets(&[size]).unwrap().view;
    assert_eq!(also("data.image_size=224"), Some(usual("data.image_size=224").ops(224)));
    assert_eq!(also("data.image_size=32"), Some(usual("data.image_size=32").ops(32)));
    // What it does state counts.
    let own = "view.b=[{op='random_resized_crop', area=[0.5, 1]}, {op='color_jitter', strength=2}]";
    let list = with_sets(&[&keys[..], &[own]].concat()).unwrap().view.b.unwrap();
    let [ViewOp::RandomResizedCrop(crop), ViewOp::ColorJitter(jitter)] = &list[..] else {
        panic!("{list:?}")
    };
    assert_eq!((crop.area, crop.aspect, jitter.strength, jitter.prob), ([0.5, 1.0], [0.5, 1.5], 2.0, 0.7));
}

#[test]
fn recorded_lists_keep_their_meaning() {
    let strength = "view.color_strength=0.5";
    let begun = with_sets(&[BARE, strength]).unwrap();
    let again = Config::from_toml(&begun.to_toml().unwrap(), "config.toml").unwrap();
    assert_eq!(again, begun);
    let over = |base: &Config, set: &str| {
        let sets = [set.to_owned()];
        Config::resolve(&Layers { base: Some(base), sets: &sets, ..Layers::default() }).unwrap()
    };
    let changed = over(&begun, "view.color_strength=0.8");
    assert_eq!(changed.view.a, begun.view.a);
    // An earlier version left out the probability of a blur where it was the usual one, and only that.
    let old = "[data]\nimage_size = 224\n[view]\nblur_prob = 0.3\na = [{ op = \"gaussian_blur\", padding = \"zero\", sigma = [0.1, 2.0] }]";
    let old = Config::from_toml(old, "config.toml").unwrap();
    let resumed = over(&old, "train.threads=2");
    for config in [&old, &resumed] {
        let Some([ViewOp::GaussianBlur(blur)]) = config.view.a.as_deref() else {
            panic!("{:?}", config.view.a)
        };
        assert_eq!(blur.prob, Some(0.5));
    }
    old.check_resume(&resumed).unwrap();
}

#[test]
fn a_key_that_a_list_follows_is_not_idle() {
    let idle = |list: &str, key: &str| {
        let [a, b] = ["a", "b"].map(|branch| format!("view.{branch}={list}"));
        with_sets(&[&a, &b, "view.color_strength=0.3", "view.preset=simclr"]).unwrap().idle(key)
    };
    let key = "view.color_strength";
    assert_eq!(idle("[{op='color_jitter'}]", key), None);
    let lists = Some("the lists view.a and view.b".to_owned());
    assert_eq!(idle("[{op='color_jitter', strength=1}]", key), lists);
    assert_eq!(idle("[{op='sobel'}]", key), lists);
    assert_eq!(idle("[{op='color_jitter'}]", "view.flip"), lists);
}

#[test]
fn operators_that_are_never_applied_are_known() {
    let blur = "view.a=[{op='sobel'}, {op='gaussian_blur'}]";
    let found = |sets: &[&str]| {
        let sets: Vec<String> = sets.iter().map(|&set| set.to_owned()).collect();
        let layers = Layers { sets: &sets, ..Layers::default() };
        let config = Config::resolve(&layers).unwrap();
        let unapplied = layers.unapplied(&config).unwrap().into_iter();
        let unapplied = unapplied.map(|it| format!("{} {} {}", it.place, it.op, it.key)).collect::<Vec<_>>();
        (unapplied.join(", "), config.idle("view.blur_sigma"), config.idle("view.blur_prob"))
    };
    let (lists, small) = ("view.b=[{op='grayscale'}]", "data.image_size=32");
    let idle = Some("the lists view.a and view.b".to_owned());
    let (none, blurred) = (String::new(), "view.a[2] gaussian_blur view.blur_prob".to_owned());
    // By default, small views are not blurred.
    assert_eq!(found(&[blur, lists]), (none.clone(), None, None));
    assert_eq!(found(&[blur, lists, small]), (blurred.clone(), idle.clone(), None));
    assert_eq!(found(&[blur, lists, small, "view.blur_prob=0.3"]), (none.clone(), None, None));
    let grey = format!("{blurred}, view.b[1] grayscale view.gray_prob");
    assert_eq!(found(&[blur, lists, small, "view.gray_prob=0"]), (grey, idle.clone(), None));
    // Where it says so itself, that is meant.
    let stated = "view.a=[{op='gaussian_blur', prob=0}]";
    assert_eq!(found(&[stated, lists, "view.blur_sigma=[1, 2]"]).0, none);
    assert_eq!(found(&[stated, lists, "view.blur_sigma=[1, 2]"]).1, idle);
}

#[test]
fn faults_in_lists_are_named() {
    let message = |list: &str| Config::from_toml(list, "lists.toml").unwrap_err().to_string();
    let text = message("[[view.a]]\nop = \"cutuot\"");
    assert!(text.contains("view.a[1].op") && text.contains("did you mean \"cutout\"?"), "{text}");
    let text = message("[[view.b]]\nop = \"sobel\"\n[[view.b]]\nop = \"solarize\"\ntreshold = [0.1, 0.2]");
    assert!(text.contains("view.b[2].treshold") && text.contains("did you mean `threshold`?"), "{text}");
    let text = message("[[view.b]]\nop = \"rotation\"\nprob = 3");
    assert!(text.contains("view.b[1].prob") && text.contains("from 0 to 1"), "{text}");
    let text = message("[[view.b]]\nprob = 1");
    assert!(text.contains("view.b[1].op") && text.contains("one of random_resized_crop"), "{text}");
    let text = message("[view]\na = 3");
    assert!(text.contains("view.a") && text.contains("a list of operators"), "{text}");
    let text = message("[[view.a]]\nop = \"sobel\"\n[[view.a]]\nop = \"random_resized_crop\"");
    assert!(text.contains("view.a") && text.contains("first of its list"), "{text}");
}

/// A message counts operators from 1, and says where in the file they are.
#[test]
fn a_fault_in_a_list_has_the_line_of_its_operator() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("lists.toml");
    for (text, place, line) in [
        (LISTS.replace("area = [0.2, 1]", "area = [0.2, 7]"), "view.a[1].area", 7),
        (LISTS.replace("prob = 0.5", "prob = 5"), "view.a[2].prob", 11),
        (LISTS.replace("prob = 0.5", "porb = 0.5"), "view.a[2].porb", 11),
        (LISTS.replace("gaussian_blur", "gauss"), "view.b[1].op", 14),
    ] {
        std::fs::write(&file, text).unwrap();
        let error =
            Config::resolve(&Layers { file: Some(&file), ..Layers::default() }).unwrap_err().to_string();
        let told = format!("lists.toml, line {line}: ");
        assert!(error.contains(&told) && error.contains(&format!("`{place}`")), "{line} {place}: {error}");
    }
}
