//! Layering, checks and messages of the configuration. Lists of operators have tests of their own (`operator_lists`).

mod common;

use std::fs;
use std::path::Path;

use common::with_sets;
use simclr_data::{DecodeOptions, Synthetic, Window};
use simclr_train::config::{
    Auto, DeviceName, KEYS, Machine, OptimizerName, Precision, Scaling, Stem, Variant,
};
use simclr_train::presets::PRESETS;
use simclr_train::presets::photos::Trainer;
use simclr_train::{Config, Layers, TrainError};

fn preset(name: &str) -> Config {
    Config::resolve(&Layers { preset: Some(name), ..Layers::default() }).unwrap()
}

fn message(sets: &[&str]) -> String {
    with_sets(sets).unwrap_err().to_string()
}

#[test]
fn every_key_of_the_typed_form_is_documented_and_the_other_way_round() {
    let text = Config::default().to_toml().unwrap();
    let written: toml::Table = text.parse().unwrap();
    let mut typed = toml::Table::try_from(Config::default()).unwrap();
    // Absent in the typed form, as their defaults depend on the image size and on other keys.
    for key in ["blur_prob", "shared_crop", "a", "b"] {
        typed["view"].as_table_mut().unwrap().insert(key.into(), "auto".into());
    }
    assert_eq!(written, typed);
    let count: usize = typed.values().map(|table| table.as_table().unwrap().len()).sum();
    assert_eq!(count, KEYS.len());
    assert!(KEYS.iter().all(|key| !key.doc.is_empty()));
}

#[test]
fn the_reference_is_a_configuration_that_changes_nothing() {
    let text = Config::reference();
    assert!(text.contains("# tau, by which similarities are divided"));
    assert_eq!(Config::from_toml(&text, "reference").unwrap(), with_sets(&[]).unwrap());
    // It changes nothing either when every key is set to the value shown.
    let set = |text: &str| {
        let lines = text.lines().map(|line| match line.strip_prefix('#') {
            Some(set) if !set.starts_with(' ') => set,
            _ => line,
        });
        lines.collect::<Vec<_>>().join("\n")
    };
    let (keys, operators) = text.split_at(text.find("# The operators of").unwrap());
    let keys = set(keys);
    assert_eq!(
        keys.lines().filter(|line| !line.starts_with('#') && line.contains(" = ")).count(),
        KEYS.len()
    );
    assert_eq!(Config::from_toml(&keys, "reference").unwrap(), with_sets(&[]).unwrap());
    let operators = Config::from_toml(&set(operators), "reference").unwrap();
    assert_eq!(operators.view.a.map(|list| list.len()), Some(11));
}

#[test]
fn a_recipe_is_one_text_for_any_number_of_threads() {
    let [one, two] = [["train.threads=1", "data.workers=1"], ["train.threads=2", "data.workers=3"]]
        .map(|sets| with_sets(&sets).unwrap());
    let text = one.recipe_to_toml().unwrap();
    assert_eq!(text, two.recipe_to_toml().unwrap());
    assert_ne!(one.to_toml().unwrap(), two.to_toml().unwrap());
    let again = Config::from_toml(&text, "recipe").unwrap();
    assert!(again.differences(&two).iter().all(|difference| difference.changes_nothing));
}

#[test]
fn images_are_decoded_as_was_said() {
    let sets = ["data.background=[1, 2, 3]", "data.window=[5, 9]", "data.shrink=7"];
    let decode = with_sets(&sets).unwrap().data.decode();
    let window = Window::Values { low: 5, high: 9 };
    assert_eq!(decode, DecodeOptions { background: [1, 2, 3], window, shrink: Some(7) });
    assert_eq!(with_sets(&[]).unwrap().data.decode().shrink, None);
}

#[test]
fn keys_without_effect_are_known() {
    for (sets, key, reason) in [
        (&["head.kind=linear", "head.layers=5"][..], "head.layers", Some("head.kind=linear")),
        (&["head.kind=linear", "head.dim=64"], "head.dim", None),
        (&["head.kind=none", "head.dim=64"], "head.dim", Some("head.kind=none")),
        (&["loss.margin=0.4"], "loss.margin", Some("loss.name=nt_xent")),
        (&["loss.margin=0.4", "loss.name=margin_triplet"], "loss.margin", None),
        (&["optim.beta2=0.9"], "optim.beta2", Some("optim.name=lars")),
        (&["optim.beta2=0.9", "optim.name=adamw"], "optim.beta2", None),
        (
            &["optim.name=sgd", "optim.trust_coefficient=0.1"],
            "optim.trust_coefficient",
            Some("optim.name=sgd"),
        ),
        (&["view.preset=simclr", "view.color_strength=0.2"], "view.color_strength", Some("view.preset")),
        (&["view.preset=simclr", "view.shared_crop=[0.5, 1]"], "view.shared_crop", None),
        (&["data.image_size=32", "view.blur_sigma=[1, 2]"], "view.blur_sigma", Some("view.blur_prob=0")),
        (&["data.image_size=96", "view.blur_sigma=[1, 2]"], "view.blur_sigma", None),
        (&["data.image_size=19", "view.blur_prob=1"], "view.blur_prob", Some("data.image_size=19")),
        (&["data.image_size=20", "view.blur_prob=1"], "view.blur_prob", None),
        (&["view.color_prob=0", "view.brightness=additive"], "view.brightness", Some("view.color_prob=0")),
        (&["data.cache=none", "data.cache_limit=2"], "data.cache_limit", Some("data.cache=none")),
        (&["data.holdout=0", "train.knn_every=2"], "train.knn_every", Some("data.holdout=0")),
        (
            &["data.image_size=32", "encoder.pool_padding=same"],
            "encoder.pool_padding",
            Some("encoder.stem=small"),
        ),
        (&["train.device=cpu", "train.deterministic=false"], "train.deterministic", Some("train.device=cpu")),
        (&["train.deterministic=false"], "train.deterministic", None),
        (&["train.batch=32"], "train.batch", None),
    ] {
        let sets: Vec<String> = sets.iter().map(ToString::to_string).collect();
        let layers = Layers { sets: &sets, ..Layers::default() };
        let config = Config::resolve(&layers).unwrap();
        assert_eq!(config.idle(key).as_deref(), reason, "{sets:?}");
        let mut given = layers.given().unwrap();
        given.sort_unstable();
        let mut keys: Vec<&str> = sets.iter().map(|set| set.split('=').next().unwrap()).collect();
        keys.sort_unstable();
        assert_eq!(given, keys);
    }
}

#[test]
fn values_that_f32_does_not_hold_are_refused() {
    for (set, expected) in [
        ("optim.epsilon=1e-50", "a number from 1e-30 to 1"),
        ("loss.temperature=1e-40", "a number from 1e-30 to 1e30"),
    ] {
        let error = with_sets(&[set]).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn the_defaults_are_the_papers() {
    let config = with_sets(&[]).unwrap();
    assert_eq!(config.data.image_size, 224);
    assert_eq!((config.loss.temperature, config.head.dim, config.head.batch_norm), (0.1, 128, true));
    let optim = &config.optim;
    assert_eq!((optim.rate, optim.weight_decay, optim.warmup_epochs), (Auto::Value(0.3), 1e-6, 10.0));
    assert_eq!(config.view.blur_prob, Some(0.5));
    assert_eq!(config.encoder.stem, Auto::Value(Stem::ImageNet));
    // "auto" is resolved to what is fast on this machine.
    let fast =
        if simclr_engine::has_gpu() || simclr_engine::has_bf16() { Precision::Bf16 } else { Precision::F32 };
    assert_eq!(config.train.precision, fast);
}

#[test]
fn presets_are_what_they_say() {
    for preset in PRESETS {
        assert!(
            preset.text.starts_with("# ")
                && preset.text.contains("# Time: ")
                && preset.text.contains("# Accuracy: ")
        );
        assert!(preset.text.contains(&format!("--preset {}", preset.name)));
        Config::resolve(&Layers { preset: Some(preset.name), ..Layers::default() }).unwrap();
    }
    let cifar = preset("cifar10");
    assert_eq!((cifar.train.batch, cifar.train.epochs, cifar.optim.rate), (512, 1000, Auto::Value(1.0)));
    assert_eq!(cifar.optim.peak_rate(cifar.train.batch), 2.0);
    assert_eq!(
        (cifar.view.color_strength, cifar.view.blur_prob, cifar.encoder.stem),
        (0.5, Some(0.0), Auto::Value(Stem::Small))
    );
    assert_eq!((cifar.loss.temperature, cifar.optim.weight_decay), (0.5, 1e-4));
    let small = preset("small");
    assert_eq!((small.encoder.width, small.train.batch, small.train.epochs), (0.25, 256, 10));
    assert_eq!((small.optim.scaling, small.optim.peak_rate(256)), (Scaling::None, 1.0));
    assert!(!small.head.batch_norm && small.head.layers == 2 && small.optim.warmup_epochs == 1.0);
    let imagenet = preset("imagenet");
    assert_eq!((imagenet.encoder.name.layers(), imagenet.train.batch), (50, 4096));
    assert!((imagenet.optim.peak_rate(4096) - 4.8).abs() < 1e-12);
}

#[test]
fn a_preset_repeats_no_default() {
    let default: toml::Table = Config::default().to_toml().unwrap().parse().unwrap();
    for preset in PRESETS {
        for (table, entries) in preset.text.parse::<toml::Table>().unwrap() {
            for (key, value) in entries.as_table().unwrap() {
                assert_ne!(&default[&table][key], value, "{}: {table}.{key}", preset.name);
            }
        }
    }
}

#[test]
fn later_layers_override_earlier_ones() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("mine.toml");
    fs::write(&file, "[train]\nepochs = 20\nseed = 7\n[loss]\ntemperature = 1\n").unwrap();
    let sets = ["train.seed=9".to_owned(), "optim.name = adamw".to_owned(), "train.seed=11".to_owned()];
    let chosen = "[train]\nbatch = 64\nepochs = 30\n".parse().unwrap();
    let layers = Layers {
        preset: Some("small"),
        chosen: Some(chosen),
        file: Some(&file),
        sets: &sets,
        ..Layers::default()
    };
    let config = Config::resolve(&layers).unwrap();
    assert_eq!((config.train.batch, config.train.epochs, config.train.seed), (64, 20, 11));
    assert_eq!((config.loss.temperature, config.optim.name), (1.0, OptimizerName::Adamw));
    assert_eq!(config.encoder.width, 0.25);
}

#[test]
fn what_is_written_is_read_again_and_is_complete() {
    let config =
        with_sets(&["view.crop_area=[0.2, 0.9]", "head.hidden=64", "train.threads=3", "view.flip=0.1"])
            .unwrap();
    let text = config.to_toml().unwrap();
    assert!(text.contains("flip = 0.1\n") && text.contains("crop_area = [0.2, 0.9]\n"), "{text}");
    assert!(text.contains("blur_prob = 0.5\n") && text.contains("stem = \"imagenet\"\n"), "{text}");
    assert_eq!(Config::from_toml(&text, "config.toml").unwrap(), config);
    assert_eq!(config.head.hidden, Auto::Value(64));
    assert_eq!(config.train.threads.unwrap_or_else(|| 1), 3);
    let lines = text.lines().filter(|line| line.contains(" = ")).count();
    assert_eq!(lines, KEYS.len());
}

#[test]
fn set_values_are_toml_and_bare_words_are_strings() {
    assert_eq!(with_sets(&["optim.name=sgd"]).unwrap().optim.name, OptimizerName::Sgd);
    assert_eq!(with_sets(&["optim.name=\"sgd\""]).unwrap().optim.name, OptimizerName::Sgd);
    assert_eq!(with_sets(&["optim.rate=1"]).unwrap().optim.rate, Auto::Value(1.0));
    assert_eq!(with_sets(&["train.device=cuda:9"]).unwrap().train.device, DeviceName::Cuda(9));
    assert_eq!(with_sets(&["view.blur_prob=auto"]).unwrap().view.blur_prob, Some(0.5));
    assert_eq!(with_sets(&["view.blur_prob=auto", "data.image_size=32"]).unwrap().view.blur_prob, Some(0.0));
    assert_eq!(with_sets(&["head.hidden=auto"]).unwrap().head.hidden, Auto::Auto);
    for bad in [
        "optim.rate",
        "=1",
        "optim.=1",
        ".rate=1",
        "optim=1",
        "optim.rate=",
        "view.crop_area=[0.1,",
        "train.seed=1\nbatch=2",
    ] {
        assert!(
            matches!(with_sets(&[bad]), Err(TrainError::Syntax { .. })),
            "{bad}: {:?}",
            with_sets(&[bad])
        );
    }
}

#[test]
fn unknown_keys_name_the_nearest() {
    for (set, near) in [
        ("optim.rat=1", "did you mean `optim.rate`?"),
        ("optim.lr=1", "did you mean `optim.rate`?"),
        ("train.batch_size=1", "did you mean `train.batch`?"),
        ("loss.temprature=1", "did you mean `loss.temperature`?"),
        ("train.temperature=1", "did you mean `loss.temperature`?"),
        ("optm.rate=1", "did you mean `optim.rate`?"),
        ("rate=1", "did you mean `optim.rate`?"),
        ("loss.zzz=1", "[loss] has name, mining, temperature, margin, normalize"),
        ("zzz.qqq=1", "the tables are data, view, encoder, head, loss, optim, train"),
    ] {
        let message = message(&[set]);
        assert!(message.contains("unknown key `") && message.contains(near), "{set}: {message}");
        assert!(message.starts_with(&format!("setting {set}: ")), "{message}");
    }
}

#[test]
fn unknown_keys_of_files_name_the_file() {
    for text in ["[train]\nbacth = 3\n", "train.bacth = 3"] {
        let message = Config::from_toml(text, "runs/mine.toml").unwrap_err().to_string();
        assert_eq!(message, "runs/mine.toml: unknown key `train.bacth`; did you mean `train.batch`?");
    }
    let message = Config::from_toml("[trian]\nbatch = 3\n", "f.toml").unwrap_err().to_string();
    assert_eq!(message, "f.toml: unknown key `trian.batch`; did you mean `train.batch`?");
    let message = Config::from_toml("[trian]\n", "f.toml").unwrap_err().to_string();
    assert_eq!(message, "f.toml: unknown key `trian`; did you mean the table [train]?");
    let message = Config::from_toml("train = 3\n", "f.toml").unwrap_err().to_string();
    assert!(message.contains("`train` is 3, expected a table"), "{message}");
    let message = Config::from_toml("[train\n", "f.toml").unwrap_err().to_string();
    assert!(message.starts_with("f.toml: TOML parse error at line 1"), "{message}");
}

#[test]
fn wrong_values_name_key_value_and_what_would_be_right() {
    for (set, expected) in [
        ("encoder.width=0.001", "`encoder.width` is 0.001, expected a number from 0.015625 to 16"),
        ("loss.temperature=0", "`loss.temperature` is 0, expected a number from 1e-30 to 1e30"),
        ("loss.temperature=nan", "`loss.temperature` is nan, expected a number from 1e-30 to 1e30"),
        ("optim.rate=inf", "`optim.rate` is inf, expected \"auto\" or a number above 0"),
        ("optim.rate=fast", "`optim.rate` is \"fast\", expected \"auto\" or a number above 0"),
        ("train.batch=1", "`train.batch` is 1, expected \"auto\" or a whole number from 2 to 1,048,576"),
        ("train.batch=1e3", "`train.batch` is 1000.0, expected \"auto\" or a whole number"),
        ("train.batch=many", "`train.batch` is \"many\", expected \"auto\" or a whole number"),
        ("train.batch=-5", "`train.batch` is -5, expected \"auto\" or a whole number"),
        ("train.epochs=0", "`train.epochs` is 0, expected a whole number"),
        ("train.seed=-1", "`train.seed` is -1, expected a whole number of 0 or more"),
        ("data.image_size=0", "`data.image_size` is 0, expected a whole number from 8 to 1,024"),
        ("view.crop_area=[0.5, 0.1]", "`view.crop_area` is [0.5, 0.1], expected two numbers [low, high]"),
        ("view.crop_area=[0, 1]", "each above 0, up to 1"),
        ("view.crop_area=0.2", "`view.crop_area` is 0.2, expected two numbers"),
        ("view.flip=2", "`view.flip` is 2, expected a number from 0 to 1"),
        ("head.batch_norm=1", "`head.batch_norm` is 1, expected true or false"),
        ("head.hidden=0", "expected \"auto\" or a whole number from 1 to 65,536"),
        ("encoder.name=resnet19", "(did you mean \"resnet18\"?)"),
        ("loss.name=xent", "expected one of \"nt_xent\", \"nt_logistic\", \"margin_triplet\""),
        ("loss.mining=hard", "expected one of \"none\", \"semi_hard\""),
        ("loss.margin=-0.1", "`loss.margin` is -0.1, expected a number from 0 to 1000"),
        (
            "train.precision=f16",
            "expected one of \"auto\", \"f32\", \"bf16\", \"fp16\", \"tf32\" (did you mean \"fp16\"?)",
        ),
    ] {
        let message = message(&[set]);
        assert!(message.contains(expected), "{set}: {message}");
    }
}

#[test]
fn values_that_contradict_each_other_are_refused() {
    assert!(
        message(&["train.epochs=5"])
            .contains("`optim.warmup_epochs` is 10, more than the 5 of `train.epochs`")
    );
    with_sets(&["train.epochs=5", "optim.warmup_epochs=5"]).unwrap();
    assert!(message(&["optim.nesterov=true"]).contains("needs optim.name = \"sgd\""));
    with_sets(&["optim.nesterov=true", "optim.name=sgd"]).unwrap();
    assert!(
        message(&["loss.mining=semi_hard"]).contains("`loss.mining` is semi_hard, which needs loss.name")
    );
    let selective = "encoder.selective_kernels=0.0625";
    assert!(message(&[selective]).contains("needs bottleneck blocks: encoder.name = \"resnet50\""));
    let of =
        |sets: &[&str]| with_sets(&[sets, &["encoder.name=resnet101"]].concat()).unwrap().encoder.variant;
    assert_eq!(
        [of(&[]), of(&[selective]), of(&[selective, "encoder.variant=standard"])],
        [Variant::Standard, Variant::D, Variant::Standard].map(Auto::Value)
    );
    for name in ["nt_logistic", "margin_triplet"] {
        with_sets(&["loss.mining=semi_hard", &format!("loss.name={name}")]).unwrap();
    }
}

#[test]
fn configurations_built_in_code_are_checked_too() {
    Config::default().validate().unwrap();
    let mut config = Config::default();
    config.loss.temperature = 0.0;
    assert!(config.validate().unwrap_err().to_string().contains("`loss.temperature` is 0"));
    let mut config = Config::default();
    config.view.crop_area = [0.5, 2.0];
    assert!(config.validate().is_err());
    let mut config = Config::default();
    config.train.seed = u64::MAX;
    assert!(config.validate().is_err() && config.to_toml().is_err());
}

#[test]
fn presets_and_files_that_are_not_there() {
    let layers = Layers { preset: Some("cifar-10"), ..Layers::default() };
    let message = Config::resolve(&layers).unwrap_err().to_string();
    assert_eq!(
        message,
        "unknown preset `cifar-10`; did you mean `cifar10`? There are cifar10, cifar10-short, imagenet, small, photos"
    );
    let layers = Layers { file: Some(Path::new("/no/such.toml")), ..Layers::default() };
    assert!(Config::resolve(&layers).unwrap_err().to_string().starts_with("cannot read /no/such.toml: "));
}

#[test]
fn differences_tell_what_changes_the_run_from_what_does_not() {
    let ours = with_sets(&[]).unwrap();
    let theirs = with_sets(&["train.threads=2", "loss.temperature=0.5"]).unwrap();
    let found = ours.differences(&theirs);
    assert_eq!(found.len(), 2);
    assert_eq!(
        (found[0].key, found[0].ours.as_str(), found[0].theirs.as_str()),
        ("loss.temperature", "0.1", "0.5")
    );
    assert!(!found[0].changes_nothing);
    assert_eq!((found[1].key, found[1].changes_nothing), ("train.threads", true));
    assert!(ours.differences(&ours).is_empty());
}

#[test]
fn a_run_goes_on_with_its_own_configuration_and_with_other_threads() {
    let saved = with_sets(&["loss.temperature=0.3", "train.threads=2"]).unwrap();
    let resumed = |sets: &[&str], preset| {
        let sets: Vec<String> = sets.iter().map(|s| (*s).to_owned()).collect();
        Config::resolve(&Layers { base: Some(&saved), sets: &sets, preset, ..Layers::default() }).unwrap()
    };
    assert_eq!(resumed(&[], None), saved);
    saved.check_resume(&resumed(&["train.threads=4", "train.keep_checkpoints=9"], None)).unwrap();
    let message = saved.check_resume(&resumed(&[], Some("cifar10"))).unwrap_err().to_string();
    assert!(
        message.starts_with("the configuration: `data.image_size` is 32, the run was begun with 224"),
        "{message}"
    );
}

#[test]
fn a_batch_that_is_left_to_the_program_goes_out_from_the_recipes() {
    let sets = ["train.batch=50".to_owned(), "train.batch=auto".to_owned()];
    // Enough images and memory for any batch.
    let machine = |_| Machine { trainer: Trainer::Processors(2), memory: 1 << 50 };
    let batch = |layers: &Layers| {
        layers.resolve_for(&Synthetic::new(50_000, 8, 0), machine).unwrap().config.train.batch
    };
    let given = Layers { sets: &sets[..1], ..Layers::default() };
    let left = Layers { sets: &sets, ..Layers::default() };
    assert_eq!((batch(&given), batch(&left)), (50, 256));
    assert_eq!(batch(&Layers { preset: Some("cifar10"), ..left.clone() }), 512);
    let chosen = Some("[train]\nbatch = 64\n".parse().unwrap());
    assert_eq!(batch(&Layers { preset: Some("photos"), chosen, ..left.clone() }), 64);
    // A resumed run keeps its own batch.
    let base = with_sets(&["train.batch=12"]).unwrap();
    assert_eq!(batch(&Layers { base: Some(&base), ..left.clone() }), 12);
    assert_eq!(left.given().unwrap(), ["train.batch"]);
}

#[test]
fn a_rate_that_is_not_given_suits_the_optimiser_and_the_scaling() {
    let rate = |sets: &[&str]| with_sets(sets).unwrap().optim.settled_rate();
    let peak = |sets: &[&str], batch| with_sets(sets).unwrap().optim.peak_rate(batch);
    // The paper's, linear and with the square root of the batch.
    assert_eq!((rate(&[]), rate(&["optim.scaling=sqrt"])), (0.3, 0.075));
    assert_eq!(rate(&["optim.scaling=none"]), 0.3);
    for (name, usual) in [("adamw", 0.001), ("sgd", 0.3)] {
        for scaling in Scaling::ALL {
            let sets = [format!("optim.name={name}"), format!("optim.scaling={scaling}")];
            let peak = peak(&sets.each_ref().map(String::as_str), 256);
            assert!((peak / usual - 1.0).abs() < 1e-12, "{name}, {scaling}: {peak}");
        }
    }
    // A given one stands, and "auto" takes back that of a preset.
    assert_eq!(rate(&["optim.rate=0.3", "optim.scaling=sqrt"]), 0.3);
    let preset = |sets: &[&str]| {
        let sets: Vec<String> = sets.iter().map(|&set| set.to_owned()).collect();
        Config::resolve(&Layers { preset: Some("cifar10"), sets: &sets, ..Layers::default() }).unwrap()
    };
    assert_eq!(preset(&["optim.name=adamw"]).optim.rate, Auto::Value(1.0));
    assert_eq!(preset(&["optim.name=adamw", "optim.rate=auto"]).optim.rate, Auto::Value(0.001));
    // A resolved configuration holds the number.
    let text = with_sets(&["optim.name=adamw"]).unwrap().to_toml().unwrap();
    assert!(text.contains("\nrate = 0.001\n"), "{text}");
}

#[test]
fn a_rate_follows_the_optimiser_over_a_configuration_unless_it_was_chosen() {
    let over = |base: &Config, sets: &[&str]| {
        let sets: Vec<String> = sets.iter().map(|&set| set.to_owned()).collect();
        Config::resolve(&Layers { base: Some(base), sets: &sets, ..Layers::default() }).unwrap()
    };
    let usual = with_sets(&[]).unwrap();
    assert_eq!(over(&usual, &[]), usual);
    assert_eq!(over(&usual, &["optim.name=adamw"]), with_sets(&["optim.name=adamw"]).unwrap());
    assert_eq!(over(&usual, &["optim.scaling=sqrt", "optim.rate=0.3"]).optim.rate, Auto::Value(0.3));
    // As runs had it that were begun when the rate did not depend on these.
    let chosen = with_sets(&["optim.name=adamw", "optim.rate=0.3"]).unwrap();
    assert_eq!(over(&chosen, &[]), chosen);
    assert_eq!(over(&chosen, &["optim.scaling=sqrt"]).optim.rate, Auto::Value(0.3));
}

#[test]
fn a_variant_follows_the_selective_kernels_of_the_layer_that_changes_them() {
    let over = |base: Option<&Config>, sets: &[&str]| {
        let sets: Vec<String> =
            ["encoder.name=resnet50"].iter().chain(sets).map(|&set| set.to_owned()).collect();
        Config::resolve(&Layers { base, sets: &sets, ..Layers::default() }).unwrap()
    };
    let (plain, selective) = (over(None, &[]), over(None, &["encoder.selective_kernels=0.0625"]));
    assert_eq!(
        [plain.encoder.variant, selective.encoder.variant],
        [Variant::Standard, Variant::D].map(Auto::Value)
    );
    assert_eq!(over(Some(&plain), &["encoder.selective_kernels=0.0625"]), selective);
    assert_eq!(over(Some(&selective), &["encoder.selective_kernels=0"]), plain);
    assert_eq!(over(Some(&selective), &["train.epochs=30"]).encoder, selective.encoder);
    let given = over(Some(&selective), &["encoder.selective_kernels=0.125", "encoder.variant=standard"]);
    assert_eq!(given.encoder.variant, Auto::Value(Variant::Standard));
    let given = over(Some(&selective), &["encoder.selective_kernels=0", "encoder.variant=d"]);
    assert_eq!(given.encoder.variant, Auto::Value(Variant::D));
}
