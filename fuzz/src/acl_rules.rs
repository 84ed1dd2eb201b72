//! ACL files: reading never panics; users of a file that is found good are written as a file that says the same.
//!
//! Input: the text of an ACL file.

use ringraft::acl::users::Users;

/// Checks one input.
pub fn check(data: &[u8]) {
    let nobody = Users::new("");
    for all_channels in [false, true] {
        let Ok(users) = nobody.read_text(data, "f", all_channels) else { continue };
        let text = text_of(&users);
        let again =
            nobody.read_text(&text, "f", all_channels).expect("what is written can be read");
        assert!(text_of(&again) == text, "{}", text.escape_ascii());
        for (one, two) in users.iter().zip(again.iter()) {
            assert!(one.name == two.name && one.is_on == two.is_on, "{}", text.escape_ascii());
            assert!(
                (&one.root, &one.others) == (&two.root, &two.others),
                "{}",
                text.escape_ascii()
            );
        }
        // What a rule names twice is kept once, and no rule becomes longer than its escapes.
        assert!(text.len() <= 4 * data.len() + 200 * users.iter().len() + 200 * brackets(data));
    }
}

fn text_of(users: &Users) -> Vec<u8> {
    users.lines().flat_map(|line| [line, b"\n".to_vec()].concat()).collect()
}

fn brackets(data: &[u8]) -> usize {
    data.iter().filter(|byte| **byte == b'(').count()
}

/// Files with rules of every kind.
pub fn seeds() -> Vec<Vec<u8>> {
    let digest = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";
    let all = format!(
        "user default on nopass sanitize-payload ~* &* +@all\n\
         user a on #{digest} >p <p ~k* %R~r %W~w resetchannels &c* -@all +@read -@slow +config|get +select|0\n\
         user b off skip-sanitize-payload (~a \"%R~b c\" &d +get -set) (allkeys allchannels allcommands -@admin)\n"
    );
    vec![
        all.into_bytes(),
        b"user a (\"~a)\" '&\"' +get) reset nocommands resetkeys clearselectors".to_vec(),
        b"user x ~a ~a %RW~a &a &a +get -get +GET +@read +@READ +ping|x +ping|X".to_vec(),
    ]
}
